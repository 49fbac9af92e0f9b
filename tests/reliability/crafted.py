"""Make crafted files whose hashes agree, and use them: a process of its own, which a crash or a hang ends alone.

`python -m tests.reliability.crafted FOLDER FIRST LAST` tries the cases FIRST to LAST - 1 on copies of the run and the
data of `made`. It prints a line at the begin and at the end of each case; an error that is not ours is in the line.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import io
import json
import math
import os
import random
import resource
import shutil
import struct
import sys
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import tomli_w
import torch
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialise_tensors

import sasrec
from sasrec.checkpoint import store
from sasrec.cli.main import main as main_of_sasrec
from sasrec.config.recipe import read_recipe
from sasrec.data.dataset import Dataset, open_dataset
from sasrec.data.items import Items
from sasrec.errors import SasrecError
from sasrec.runs.folder import RunFolder, best_baseline, metric_of
from sasrec.runtime.log import RunLog
from sasrec.studies.reproduce import result_of
from sasrec.studies.verdict import verdict_on
from tests.synthetic import chain_frame

SMALL = {"maxlen": 8, "hidden_units": 8, "num_blocks": 1, "num_epochs": 2, "batch_size": 16, "device": "cpu"}
LIMIT = 10  # seconds that one use of a crafted file may take
MEMORY = 2 * 2**30  # bytes that a process may take beyond those it begins with
# Stand for texts that cannot be made from values.
_DEEP, _DEEP_OBJECT, _LONG_NUMBER, _BEYOND = "«deep»", "«deep object»", "«long number»", "«beyond»"
_HOSTILE: list[Any] = [
    None, True, False, -1, 0, 1, 7, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), 0.5, -1.5, 1e308, 5e-324,
    math.nan, math.inf, -math.inf, "", "x", "7", "\0", "\x1b[2J", "../../../etc/passwd", "/dev/zero", "x" * 100_000,
    "step-00000001", "test", [], {}, [1], {"a": 1}, [[]], [None], {"": None}, _DEEP, _DEEP_OBJECT, _LONG_NUMBER, _BEYOND,
]  # fmt: skip


ARRAYS = {"items": "<i4", "times": "<i8", "offsets": "<i8"}


_OTHER_KINDS = (torch.float64, torch.int64, torch.bool, torch.bfloat16, torch.float16, torch.int8, torch.complex64)
_OTHER_VALUES = (math.nan, math.inf, -1.0, 1e38, -0.0, 1e-40)


def made(folder: Path) -> None:
    """Train two runs, export one, and write a recipe for it; all that the cases need."""
    data = sasrec.prepare(chain_frame(users=20), output=folder / "data")
    for name, seed in (("one-0", 0), ("other", 1)):
        sasrec.train(folder / "data", folder / name, seed=seed, **SMALL)
    sasrec.export(folder / "one-0", folder / "export")
    recipe = tomllib.loads((folder / "one-0/config.toml").read_text())
    recipe["data"]["dataset"] = ""
    recipe["expected"] = {"data_hash": data.data_hash, "seeds": [0], "test.full.ndcg@10": [0.0, 1.0]}
    recipe["published"] = [{"metric": "test.full.ndcg@10", "value": 0.5, "source": "nobody"}]
    (folder / "one.toml").write_text(tomli_w.dumps(recipe))


# -- mutations ---------------------------------------------------------------------------------------------------


def path_in(value: Any, chance: random.Random) -> tuple[Any, ...]:
    """The path of a value inside a document, which is more often near the top; () for the document itself."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not keys:
        return ()
    key = chance.choice(keys)
    return (key, *(path_in(value[key], chance) if chance.random() < 0.7 else ()))


def mutated(value: Any, chance: random.Random) -> Any:
    """A document with one to three values that are replaced, removed, added or renamed."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        path = () if chance.random() < 0.05 else path_in(value, chance)
        hostile = chance.choice(_HOSTILE)
        if not path:
            return hostile
        within = value
        for key in path[:-1]:
            within = within[key]
        match chance.randrange(8):
            case 0 if isinstance(within, dict):
                del within[path[-1]]
            case 1 if isinstance(within, dict):
                within[chance.choice(("", "x", "\0", "step", "__class__", "x" * 10_000))] = within.pop(path[-1])
            case 2 if isinstance(within, dict):
                within[str(chance.choice(("more", "1", "weights", "valid")))] = hostile
            case 3:
                within[path[-1]] = [within[path[-1]]]
            case _:
                within[path[-1]] = hostile
        if not isinstance(value, dict | list):
            break
    return value


def damaged(text: bytes, chance: random.Random) -> bytes:
    """A text that is cut, or has other bytes inside."""
    place = chance.randrange(len(text) + 1)
    inserted = chance.choice(
        (b"\xff", b"\0", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"\xef\xbb\xbf", b"x")
    )
    return chance.choice((text[:place], text[:place] + inserted + text[place:], inserted + text, inserted))


def with_texts(text: str) -> bytes:
    deep = {_DEEP: "[" * 100_000 + "]" * 100_000, _LONG_NUMBER: "9" * 10_000, _BEYOND: "1e999"}
    deep[_DEEP_OBJECT] = '{"a":' * 3_000 + "1" + "}" * 3_000
    for sign, instead in deep.items():
        text = text.replace(json.dumps(sign), instead).replace(f'"{sign}"', instead)
    return text.encode(errors="surrogatepass")


def crafted_json(path: Path, chance: random.Random) -> None:
    text = path.read_bytes()
    if chance.random() < 0.1:
        path.write_bytes(damaged(text, chance))
    else:
        path.write_bytes(with_texts(json.dumps(mutated(json.loads(text), chance), ensure_ascii=False)))


def crafted_lines(path: Path, chance: random.Random) -> None:
    lines = path.read_bytes().splitlines()
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(lines))
        lines[at] = with_texts(json.dumps(mutated(json.loads(lines[at]), chance), ensure_ascii=False))
        if chance.random() < 0.2:
            lines[at] = damaged(lines[at], chance)
            break
    path.write_bytes(b"\n".join(lines) + b"\n")


def crafted_toml(path: Path, chance: random.Random) -> None:
    text = path.read_text()
    if chance.random() < 0.1:
        path.write_bytes(damaged(text.encode(), chance))
        return
    found = mutated(tomllib.loads(text), chance)
    try:
        written = tomli_w.dumps(found)
    except (TypeError, ValueError, AttributeError):  # None, or no table
        path.write_bytes(damaged(text.encode(), chance))
        return
    deep = {_DEEP: "[" * 3_000 + "]" * 3_000, _LONG_NUMBER: "9" * 10_000, _BEYOND: "0x" + "f" * 10_000}
    deep[_DEEP_OBJECT] = "{a=" * 3_000 + "1" + "}" * 3_000
    for sign, instead in deep.items():
        written = written.replace(f'"{sign}"', instead)
    path.write_bytes(written.encode(errors="surrogatepass"))


def crafted_header(path: Path, chance: random.Random) -> None:
    """A safetensors file with another header, or another length of it."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = with_texts(json.dumps(mutated(json.loads(data[8 : 8 + length]), chance), ensure_ascii=False))
    claimed = len(header) if chance.random() < 0.8 else chance.choice((0, 7, 2**31, 2**63 - 1, len(header) - 1))
    path.write_bytes(struct.pack("<Q", claimed) + header + data[8 + length :])


def crafted_tensors(path: Path, chance: random.Random) -> None:
    """A sound safetensors file, one of whose tensors has another kind, shape, name or values."""
    tensors = parse_tensors(path.read_bytes())
    for _ in range(chance.choice((1, 1, 2))):
        name = chance.choice(sorted(tensors))
        tensor = tensors[name]
        shaped: list[Callable[[], torch.Tensor]] = [
            lambda tensor=tensor: tensor.to(chance.choice(_OTHER_KINDS)),
            lambda tensor=tensor: torch.full_like(tensor, chance.choice(_OTHER_VALUES)),
            lambda: torch.tensor(chance.choice((0.0, 1.0, math.nan))),
            lambda: torch.zeros(0),
            lambda: torch.zeros(3, 3),
            lambda tensor=tensor: tensor[None],
            lambda tensor=tensor: tensor.flatten(),
            lambda tensor=tensor: tensor.flatten()[:-1].clone(),
            lambda tensor=tensor: torch.cat([tensor.flatten(), torch.zeros(8)]),
            lambda tensor=tensor: tensor.T.contiguous() if tensor.dim() == 2 else torch.ones(2, 2),
        ]
        match chance.randrange(6):
            case 0 if len(tensors) > 1:
                del tensors[name]
            case 1:
                tensors[chance.choice(("", "x", "x:step", "item_embedding.weight:more", "\0", "é" * 999))] = (
                    tensor.clone()
                )
            case _:
                tensors[name] = chance.choice(shaped)().contiguous().clone()
    path.write_bytes(serialise_tensors(tensors))


def crafted_array(path: Path, chance: random.Random) -> None:
    """Numbers of a data set, some of which are out of their range, or out of order."""
    kind = ARRAYS[path.stem]
    array = np.fromfile(path, kind)
    extremes = (0, -1, 1, 26, 10**6, np.iinfo(kind).max, np.iinfo(kind).min)
    match chance.randrange(4):
        case 0:
            array = array[::-1].copy()
        case 1:
            array[:] = chance.choice(extremes)
        case 2:
            chance.shuffle(array)
        case _:
            for _ in range(chance.randrange(1, 4)):
                array[chance.randrange(len(array))] = chance.choice(extremes)
    array.tofile(path)


def crafted_parquet(path: Path, chance: random.Random) -> None:
    """A sound Parquet file with columns of other types, names, lengths or values; or a damaged one."""
    frame = pl.read_parquet(path)
    name = chance.choice(frame.columns)
    column = pl.col(name)
    types = (pl.String, pl.Float64, pl.Int64, pl.List(pl.String), pl.Binary, pl.Boolean, pl.UInt8)
    changes: list[Callable[[], pl.DataFrame]] = [
        lambda: frame.drop(name),
        lambda: frame.rename({name: chance.choice(("", "x", "\0"))}),
        lambda: frame.with_columns(pl.lit(None).alias(name)),
        lambda: frame.with_columns(pl.lit("a").alias(name)),
        lambda: frame.with_columns(pl.lit(math.nan).alias(name)),
        lambda: frame.with_columns(pl.lit(-1).alias(name)),
        lambda: frame.with_columns(pl.lit([{"a": [1]}]).alias(name)),
        lambda: frame.with_columns(column.cast(pl.String).cast(chance.choice(types), strict=False)),
        lambda: frame.head(chance.choice((0, 1, frame.height - 1))),
        lambda: pl.concat([frame, frame]),
        lambda: frame.with_columns(pl.when(pl.int_range(pl.len()) == 0).then(None).otherwise(column).alias(name)),
    ]
    try:
        changed = chance.choice(changes)()
    except pl.exceptions.PolarsError:
        changed = frame.head(0)
    changed.write_parquet(path)
    if chance.random() < 0.2:
        path.write_bytes(damaged(path.read_bytes(), chance))


def no_file(path: Path, chance: random.Random) -> None:
    """Something that is not a file, or one that claims a terabyte."""
    path.unlink()
    match chance.randrange(5):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to("/dev/zero")
        case 3:
            path.symlink_to(path.name)  # a circle
        case _:
            with path.open("wb") as stream:
                stream.truncate(2**40)


# -- hashes that agree -------------------------------------------------------------------------------------------


def _digest(path: Path) -> dict[str, Any]:
    if not path.is_file() or path.stat().st_size > 2**30:
        return {"bytes": path.stat().st_size if path.is_file() else 0, "sha256": "0" * 64}
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def hashed(run: Path) -> None:
    """Write hashes that agree with the files: of the checkpoints, and the seal of a run."""
    for checkpoint in (run / "checkpoints").glob("step-*"):
        manifest = checkpoint / "MANIFEST.json"
        if manifest.is_file() and not manifest.is_symlink() and manifest.stat().st_size < 2**30:
            try:
                expected = json.loads(manifest.read_bytes())
                expected |= {name: _digest(checkpoint / name) for name in expected}
            except (ValueError, TypeError, RecursionError, OSError):
                continue
            manifest.write_text(json.dumps(expected))
    if (run / "seal.json").is_file() and (run / "seal.json").stat().st_size < 2**30:
        try:
            sealed = json.loads((run / "seal.json").read_bytes())
            sealed["files"] = {name: _digest(run / name)["sha256"] for name in sealed["files"]}
            sealed["log"] = _digest(run / "log.jsonl")
            sealed["manifest"] = _digest(run / "checkpoints" / sealed["checkpoint"] / "MANIFEST.json")["sha256"]
        except (ValueError, TypeError, KeyError, RecursionError, OSError):
            return
        (run / "seal.json").write_text(json.dumps(sealed))


def hashed_data(folder: Path) -> None:
    """Write a manifest that agrees with the files of the data set, and checkpoints that agree with its hash."""
    manifest = json.loads((folder / "data/manifest.json").read_bytes())
    own = folder / "data" / manifest["folder"]
    manifest["files"] = {name: _digest(own / name) for name in manifest["files"]}
    with contextlib.suppress(Exception, pl.exceptions.PanicException):
        if all((own / name).is_file() and (own / name).stat().st_size < 2**30 for name in manifest["files"]):
            arrays = {name: np.fromfile(own / f"{name}.bin", kind) for name, kind in ARRAYS.items()}
            ids = [pl.read_parquet(own / f"{name}.parquet")["id"] for name in ("users", "items")]
            data = Dataset(**arrays, user_ids=ids[0], catalogue=Items(ids[1]))
            manifest["data_hash"] = data.data_hash
    (folder / "data/manifest.json").write_text(json.dumps(manifest))
    for state in folder.glob("*/checkpoints/*/state.json"):
        state.write_text(json.dumps(json.loads(state.read_bytes()) | {"data_hash": manifest["data_hash"]}))
    for run in ("one-0", "other", "export"):
        hashed(folder / run)


# -- uses --------------------------------------------------------------------------------------------------------


def uses(folder: Path) -> dict[str, Callable[[], object]]:
    """What a user does with these files, by name."""
    run, quiet = folder / "one-0", RunLog(None, _Quiet())

    def served(of: Path, **options: Any) -> None:
        recommender = sasrec.load(of, device="cpu", **options)
        recommender.recommend(["item-01", "item-02"])
        if of == run:
            recommender.recommend_user("u001")
            recommender.recommend_all(3)

    def told() -> None:
        found = RunFolder(run)
        found.ending(), found.is_finished(), found.launch()
        metrics = found.metrics()
        repr(metrics), metrics._repr_html_(), metrics.frame()
        best_baseline(metrics, "test.full.ndcg@10"), metric_of(metrics, "valid.full.hr@10")

    def compared() -> None:
        found = sasrec.compare([f"{run}:popularity", folder / "other", run], resamples=200)
        repr(found), found._repr_html_()

    def printed(*arguments: object) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            main_of_sasrec(list(map(str, arguments)))

    return {
        "data": lambda: (repr(open_dataset(folder / "data")), open_dataset(folder / "data")._repr_html_()),
        "unverified": lambda: open_dataset(folder / "data", verify=False).history("u001"),
        "load": lambda: served(run),
        "named": lambda: served(run, checkpoint=store.published(run / "checkpoints")[-1]),
        "export": lambda: served(folder / "export"),
        "exported": lambda: sasrec.export(run, folder / "again"),
        "told": told,
        "compare": compared,
        "printed": lambda: printed("compare", f"{run}:popularity", run, folder / "other"),
        "verdict": lambda: verdict_on(run),
        "recipe": lambda: result_of(run, read_recipe(folder / "one.toml"), 0),
        "measured": lambda: printed("evaluate", run, "--device", "cpu"),
        "evaluate": lambda: sasrec.evaluate(run, log=quiet, device="cpu"),
        "start": lambda: sasrec.train(folder / "data", folder / "warm", start_from=run, log=quiet, **SMALL),
        "resume": lambda: sasrec.resume(run, num_epochs=3, log=quiet),
    }


def _Quiet() -> Any:  # noqa: N802
    from rich.console import Console

    return Console(quiet=True)


_CHECKPOINT = {"load", "named", "exported", "evaluate", "resume", "start"}
_EXPORT = {"export"}
_RUN = {"told", "compare", "printed", "measured", "verdict", "recipe", "load", "resume", "evaluate"}
_DATA = {"data", "unverified", "load", "evaluate", "resume", "start"}
# The best checkpoint is what is loaded, the newest what is resumed.
_best, _newest, _data = "one-0/checkpoints/BEST", "one-0/checkpoints/NEWEST", "data/data-1"
KINDS: dict[str, tuple[str, Callable[[Path, random.Random], None], set[str]]] = {
    "data manifest": ("data/manifest.json", crafted_json, _DATA),
    "data report": (f"{_data}/report.json", crafted_json, _DATA),
    "item numbers": (f"{_data}/items.bin", crafted_array, _DATA),
    "times": (f"{_data}/times.bin", crafted_array, _DATA),
    "offsets": (f"{_data}/offsets.bin", crafted_array, _DATA),
    "user ids": (f"{_data}/users.parquet", crafted_parquet, _DATA),
    "item ids": (f"{_data}/items.parquet", crafted_parquet, _DATA),
    "checkpoint manifest": (f"{_newest}/MANIFEST.json", crafted_json, _CHECKPOINT),
    "state": (f"{_best}/state.json", crafted_json, _CHECKPOINT),
    "more state": (f"{_newest}/state.json", crafted_json, _CHECKPOINT),
    "weights header": (f"{_best}/weights.safetensors", crafted_header, _CHECKPOINT),
    "weights": (f"{_newest}/weights.safetensors", crafted_tensors, _CHECKPOINT),
    "optimizer header": (f"{_newest}/optimizer.safetensors", crafted_header, {"resume"}),
    "optimizer": (f"{_newest}/optimizer.safetensors", crafted_tensors, {"resume"}),
    "settings": ("one-0/config.toml", crafted_toml, _RUN),
    "metrics": ("one-0/metrics.json", crafted_json, _RUN),
    "log": ("one-0/log.jsonl", crafted_lines, _RUN),
    "ranks": ("one-0/ranks.parquet", crafted_parquet, _RUN),
    "seal": ("one-0/seal.json", crafted_json, _RUN),
    "recipe": ("one.toml", crafted_toml, {"recipe"}),
    "export items": ("export/items.parquet", crafted_parquet, _EXPORT),
    "export state": ("export/checkpoints/BEST/state.json", crafted_json, _EXPORT),
}


def case(folder: Path, scratch: Path, number: int) -> tuple[str, list[str]]:
    """Try a case; return its words, and what came of it that is not ours."""
    chance = random.Random(number)
    name = list(KINDS)[number % len(KINDS)]
    place, craft, used = KINDS[name]
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(folder, scratch, symlinks=True)
    for run in ("one-0", "other"):
        config = (scratch / run / "config.toml").read_text()
        (scratch / run / "config.toml").write_text(config.replace(str(folder), str(scratch)))
    hashed(scratch / "one-0")
    hashed(scratch / "other")
    best, newest = (
        store.best(scratch / "one-0/checkpoints").name,
        store.published(scratch / "one-0/checkpoints")[-1].name,
    )
    path = scratch / place.replace("BEST", best).replace("NEWEST", newest)
    if chance.random() < 0.07:
        craft = no_file
    craft(path, chance)
    if name == "data manifest":
        pass
    elif place.startswith("data"):
        hashed_data(scratch)
    else:
        hashed(scratch / place.split("/")[0])
        if name == "export items" and path.is_file() and path.stat().st_size < 2**30:
            state = scratch / f"export/checkpoints/{best}/state.json"
            found = json.loads(state.read_bytes()) | {"items_sha256": _digest(path)["sha256"]}
            state.write_text(json.dumps(found))
            hashed(scratch / "export")
    found = []
    _say("begin", number, name, craft.__name__)
    for action, use in uses(scratch).items():
        if action not in used:
            continue
        began = time.monotonic()
        try:
            use()
        except SasrecError:
            pass
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            ours = [each for each in traceback.extract_tb(error.__traceback__) if "/src/sasrec/" in each.filename]
            at = ours[-1] if ours else where
            found.append(
                f"{action}: {type(error).__name__}: {str(error)[:100]} at {at.filename[-30:]}:{at.lineno}"
            )
        if (took := time.monotonic() - began) > LIMIT:
            found.append(f"{action}: took {took:.0f} s")
    return f"{name} ({craft.__name__})", found


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main() -> None:
    folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(first, last):
        faulthandler.dump_traceback_later(3 * LIMIT, exit=True)
        words, found = case(folder, folder.with_name(f"{folder.name}-case"), number)
        _say("end", number, words, json.dumps(found))


if __name__ == "__main__":
    main()
