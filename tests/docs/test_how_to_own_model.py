"""What the how-to of own models shows works as written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/how-to-own-model.md"


def test_the_code_prints_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(python|text)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert [language for language, _ in blocks] == ["python", "text"] * 2
    names: dict[str, object] = {"__name__": "__main__"}
    for language, text in blocks:
        if language == "python":
            exec(compile(text, PAGE.name, "exec"), names)
        else:
            assert capsys.readouterr().out == text
