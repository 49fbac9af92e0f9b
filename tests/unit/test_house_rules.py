"""The rules of CONTRIBUTING.md that a program can check."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sasrec
from sasrec.config.settings import PARTS

SOURCE = Path(sasrec.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PUBLIC = [
    "Dataset", "Recommender", "Rules", "RunConfig", "SasrecError", "SasrecWarning", "blend", "compare", "evaluate", "export", "export_onnx", "final_fit", "load",
    "open_dataset", "prepare", "refresh", "resume", "train",
]  # fmt: skip
# A new setting is a decision: add it here, to the reference in docs/, and to CHANGELOG.md.
SETTINGS = [
    "accumulate", "baskets", "batch_size", "clip_norm", "columns", "compile", "dataset", "detect_anomaly", "deterministic", "device", "diagnose_every",
    "dropout_rate", "duplicates", "encoding", "eval_every", "feed_forward", "feed_forward_width", "gamma", "gated", "gbce_t", "hidden_units", "interval_unit", "item_column",
    "k_core", "l2_emb", "l2_emb_tables", "label_smoothing", "logq", "loss", "lr", "max_minutes", "max_rejects", "maxlen", "mhc",
    "mhc_expansion_rate", "mhc_init_gate", "mhc_projection", "mhc_sinkhorn_iter", "min_item_events",
    "min_user_events", "missing", "negatives", "norm", "num_blocks", "num_epochs", "num_heads", "num_negatives", "optimizer",
    "patience", "precision", "query", "repeats", "save_minutes", "schedule", "seed", "share_negatives", "show_shapes", "skip_own_items",
    "split", "step_size", "step_unit", "stop_epoch", "temperature", "tensorboard", "time", "time_column", "time_format", "time_span",
    "time_unit", "user_column", "valid_users", "warmup_steps", "weight_decay", "where", "windows",
]  # fmt: skip
# Texts of metrics.json are compared between runs, so another wording would make old runs incomparable.
STORED = {
    "items of the user's whole history are no candidates, and no targets",
    "the user has had the target before",
}
# Words that stopped readers, in texts that people read.
HARD = re.compile(
    r"\b(anew|but for|leave [a-z_ ]{0,20}away|is no [a-z]+|are no [a-z]+|there is none|ha(s|ve) had|holds? what|"
    r"mend(ed|s)?|told|to the bit|go(es)? on)\b"
)


def defined(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and content of every text: docstrings, messages, help."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, " ".join(node.value.split())


def test_no_file_is_longer_than_400_lines_and_no_function_than_60() -> None:
    long = [path.name for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > 400]
    functions = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in FILES
        for node in defined(path)
        if not isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert long + functions == []


def test_every_public_name_has_a_docstring() -> None:
    bare = []
    for path in FILES:
        for top in ast.parse(path.read_text(encoding="utf-8")).body:
            methods = [each for each in getattr(top, "body", []) if isinstance(each, ast.FunctionDef)]
            for node in [top, *(methods if isinstance(top, ast.ClassDef) else [])]:
                named = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
                if named and not top.name.startswith("_") and not ast.get_docstring(node):
                    bare.append(f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}")
    modules = [str(path.relative_to(SOURCE)) for path in FILES if path.read_text(encoding="utf-8")]
    assert bare == []
    assert [name for name in modules if not ast.get_docstring(ast.parse((SOURCE / name).read_text()))] == []


def test_every_setting_is_read_outside_the_configuration() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in FILES if path.parent.name != "config")
    names = [field.name for part in PARTS for field in dataclasses.fields(part)]
    assert [name for name in names if not re.search(rf"\.{name}\b", code)] == []


def test_public_names_and_settings_are_frozen() -> None:
    assert sorted(sasrec.__all__) == sorted(PUBLIC)
    assert sorted(field.name for part in PARTS for field in dataclasses.fields(part)) == SETTINGS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_texts_have_no_word_that_stopped_readers(path: Path) -> None:
    found = [
        f"{line}: {match[0]!r} in {text[:90]}"
        for line, text in texts(path)
        for match in HARD.finditer(text)
        if text not in STORED
    ]
    assert found == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_prose_of_the_documents_wraps_at_120(path: Path) -> None:
    """Except rows of tables, and blocks of code."""
    found, code = [], False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        code ^= line.lstrip().startswith("```")
        if len(line) > 120 and not code and not line.startswith(("|", "    ")):
            found.append(f"{number}: {len(line)} characters")
    assert found == []
