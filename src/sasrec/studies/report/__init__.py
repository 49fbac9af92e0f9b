"""Look at runs: `sasrec plot` draws their training, `sasrec report` writes one HTML file about them."""
