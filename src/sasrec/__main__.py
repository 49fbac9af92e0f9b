"""Start the command line: for `sasrec …`, `python -m sasrec …` and `torchrun -m sasrec …`."""

import os
import sys


def start() -> int:
    """Run the command line and return the exit status. Ctrl-C ends it quietly even while modules are imported."""
    _open_streams()
    try:
        from sasrec.cli.main import main

        return main()
    except KeyboardInterrupt:
        return 130


def _open_streams() -> None:
    """Let stdout and stderr accept every text, even if the shell closed them or their encoding is ASCII."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # The stream lives as long as the process.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        else:
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(start())
