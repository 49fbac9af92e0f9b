"""The site: `make docs` builds it from the pages of this folder into build/docs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

import sasrec

project = "sasrec"
author = "the sasrec maintainers"
release = version = sasrec.__version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["tools"]
root_doc = "index"
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
html_theme = "furo"
html_title = f"sasrec {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
# Shown commands have a prompt, and outputs beside them; no lexer is strict about both.
suppress_warnings = ["misc.highlighting_failure"]


class EnglishAndChinese(SearchEnglish):
    """The search index, with each pair of neighbouring Chinese characters as a word.

    Chinese has no blanks, so whole phrases are words of the index. The search finds a part of a word only if the
    part has three characters or more, but most Chinese terms have two.
    """

    def split(self, input: str) -> list[str]:
        """Return the words of a text."""
        phrases = re.findall(r"[\u4e00-\u9fff]{2,}", input)
        pairs = [phrase[at : at + 2] for phrase in phrases for at in range(len(phrase) - 1)]
        return super().split(input) + pairs


def _add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Add the tree of pages to the index: a part for each of its headings, with the pages that it links to.

    So the index stays plain Markdown, which a code host shows as well.
    """
    if page != root_doc:
        return
    for heading, body in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", source[0], re.DOTALL | re.MULTILINE):
        links = re.findall(r"\]\(([^):#]+)\.md\)", body)
        inside = [link for link in dict.fromkeys(links) if Path(app.srcdir, f"{link}.md").exists()]
        if inside:
            lines = "\n".join(inside)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{lines}\n```\n"


def _name_code(app: Sphinx, page: str, source: list[str]) -> None:
    """Name the files outside this folder, which the site does not have, instead of linking to them."""
    here = Path(app.srcdir, page).parent

    def named(link: re.Match[str]) -> str:
        path = Path(os.path.normpath(here / link[2].partition("#")[0]))
        if path.is_relative_to(app.srcdir) or not path.exists():
            return link[0]
        name = f"`{path.relative_to(Path(app.srcdir).parent)}`"
        return name if link[1].strip("`") in name else f"{link[1]} ({name})"

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\((\.\.?/[^)\s]+)\)", named, source[0])


def _join_lines(app: Sphinx, page: str, source: list[str]) -> None:
    """Join the lines of Chinese paragraphs; a browser would show each line break as a blank."""
    if page.endswith(".zh"):
        source[0] = re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n(?=[\u3000-\u9fff\uff00-\uffef])", "", source[0])


def _mark_short(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Mark the options and names that site.css keeps on one line."""
    for literal in tree.findall(nodes.literal):
        if len(literal.astext()) <= 24:
            literal["classes"].append("short")


def _set_language(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: nodes.document) -> None:
    """Tell browsers the language of a page, for its fonts, hyphens and voices."""
    if page.endswith(".zh"):
        context["language"] = "zh"


def setup(app: Sphinx) -> None:
    """Register what this site adds to Sphinx."""
    app.add_search_language(EnglishAndChinese)
    app.connect("html-page-context", _set_language)
    app.connect("source-read", _add_contents)
    app.connect("source-read", _name_code)
    app.connect("source-read", _join_lines)
    app.connect("doctree-resolved", _mark_short)
