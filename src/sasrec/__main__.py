"""So that `python -m sasrec …` and `torchrun -m sasrec …` work."""

import sys

from sasrec.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
