"""Start the command line: for `sasrec …`, `python -m sasrec …` and `torchrun -m sasrec …`."""

import io
import os
import sys


def start() -> int:
    """Run the command line and return the exit status. Ctrl-C ends it quietly even while modules are imported."""
    _open_streams()
    try:
        from sasrec.cli.endings import flushed
        from sasrec.cli.main import main

        try:
            status = main()
        except SystemExit as stop:  # after help, or a signal
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return flushed(status)
    except KeyboardInterrupt:
        return 130


def _open_streams() -> None:
    """Let stdout and stderr accept every text, even if the shell closed them or their encoding is ASCII.

    A closed stream becomes the null device, so that no file gets its number, 0 to 2.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 — open to the end
        elif (
            sys.__stderr__ is not None and stream is sys.__stderr__
        ):  # not one that a program around us has put in its place
            sys.stderr = _Stderr(stream.buffer, stream.encoding, "backslashreplace", line_buffering=True)
        elif name != "stdin":
            stream.reconfigure(errors="backslashreplace")


class _Stderr(io.TextIOWrapper):
    """Standard error, which may fail: when nobody can read about the work any more, the work is still done."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            return


if __name__ == "__main__":
    sys.exit(start())
