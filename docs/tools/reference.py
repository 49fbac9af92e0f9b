"""Write the generated parts of the reference from the code, or check that they are current.

    python docs/tools/reference.py             # write the parts
    python docs/tools/reference.py --check     # exit status 1 if a page is not current; its name is printed

A page of docs/reference is written by hand, except for its parts between `<!-- generated: NAME -->` and
`<!-- end -->`. The tool makes them from settings, help texts, docstrings and the description of the server. A page
that lacks a part, such as that of a new command, is not current, and is not written.

It needs the packages of `pip install "sasrec[serve]"`.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import reference_commands
import reference_errors
import reference_http
import reference_python
import reference_settings

FOLDER = Path(__file__).resolve().parents[1] / "reference"
_PART = re.compile(r"(<!-- generated: (?P<name>[^\n]+?) -->\n)(?P<content>.*?)(<!-- end -->)", re.DOTALL)
_LAYOUT = re.compile(r"(\s|-{5,})+")  # of help texts, which differs between releases of the parser of options
_PAGES = {
    "settings.md": reference_settings.regions,
    "command-line.md": reference_commands.regions,
    "python.md": reference_python.regions,
    "http.md": reference_http.regions,
    "errors.md": reference_errors.regions,
}


def renewed(text: str, parts: dict[str, str]) -> tuple[str, list[str]]:
    """Return a page with its generated parts made again, and what is wrong with the others."""
    names = [found["name"] for found in _PART.finditer(text)]
    wrong = [f"the part {name!r} is missing" for name in parts if name not in names]
    wrong += [f"the part {name!r} is unknown" for name in names if name not in parts]

    def part(found: re.Match[str]) -> str:
        return f"{found[1]}\n{parts.get(found['name'], '').strip()}\n\n{found[4]}"

    return _PART.sub(part, text), wrong


def main(arguments: list[str] | None = None) -> int:
    """Write or check the pages; return 1 if one is not current, or cannot be written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of the pages")
    asked = parser.parse_args(arguments)
    failed = False
    for name, parts_of in _PAGES.items():
        page = asked.folder / name
        text = page.read_text(encoding="utf-8")
        found, wrong = renewed(text, parts_of())
        if name == "errors.md":
            wrong += [f"no message of the code is: {each}" for each in reference_errors.unknown_messages(text)]
        if asked.check and _LAYOUT.sub(" ", found) != _LAYOUT.sub(" ", text):
            wrong.append("not current. Run python docs/tools/reference.py")
        elif not asked.check and not wrong and found != text:
            page.write_text(found, encoding="utf-8")
            sys.stdout.write(f"written: {name}\n")
        sys.stdout.write("".join(f"docs/reference/{name}: {each}\n" for each in wrong))
        failed = failed or bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
