"""The tables of docs/reference/settings.md, from the fields of RunConfig and their rules."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from reference_text import code, field_texts, linked, table, wrapped

from sasrec.config.fields import KeepsWeights, MayChangeOnResume, OnlyWith, settings_with
from sasrec.config.rules import relations
from sasrec.config.settings import PARTS, RunConfig
from sasrec.errors import ConfigError

_MOST = 1_000_000_000  # the page says once that this is the most of a number without another limit
# Sentences behind the help of a setting, which must fit on one line of the code. The page has room for more.
_MORE = {
    "dataset": "[File formats](file-formats.md#sources-of-events) lists all sources.",
    "columns": "A pair is the name or number of a column, a colon and a role. The roles `items` and `times` are "
    "for columns of lists.",
    "time_unit": "`auto` treats a row with a time before 1990 or in the future as bad, and refuses the data if "
    "most times are such. A named unit accepts such times. `iso` stands for dates.",
    "missing": "An empty value is always missing. A row without a user or an item is a bad row.",
    "max_rejects": "A bad row lacks a user or an item, or has a value that cannot be read or an implausible time. "
    "The file rejects.csv in the run folder, or in the folder that `sasrec prepare` writes, lists all bad rows.",
    "duplicates": "`first` is the earliest event, and `last` the latest.",
    "maxlen": "The events that the model reads are the [window](glossary.md#window). A larger window needs more "
    "memory and time.",
    "norm": "[SASRec](../explanation/models.md#sasrec) has the three formulas.",
    "feed_forward": "To keep the number of parameters with `swiglu`, set feed_forward_width to two thirds of "
    "hidden_units.",
    "gated": "The gate is a number between 0 and 1 for each dimension, computed from the residual. [Gated "
    "residuals](../explanation/models.md#gated-residuals) has the formula.",
    "time": "[TiSASRec](../explanation/models.md#tisasrec) has the formulas.",
    "time_span": "All longer times look the same to the model.",
    "interval_unit": "The gap is the time between two consecutive events of the user, above zero. Times are "
    "rounded to whole numbers of this unit, the [ticks](glossary.md#tick). `history` also reads held-out events, "
    "as the authors of TiSASRec do; `training` does not.",
    "mhc": "A plain transformer adds the output of each layer to one vector, the residual. mHC keeps several "
    "copies of the residual, the [streams](glossary.md#mhc), and learns to read, write and mix them. A training "
    "step takes about twice as long.",
    "mhc_expansion_rate": "A stream is a copy of the residual. More streams need more memory and time.",
    "mhc_projection": "With `sinkhorn` the sums are nearly 1, and with `birkhoff` exactly 1, for at most 4 "
    "streams. With `orthogonal` weights can be negative, and mixing keeps the length of the streams.",
    "mhc_sinkhorn_iter": "More repetitions bring the sums nearer to 1, and take longer.",
    "mhc_init_gate": "The maps decide how a layer reads, writes and mixes the streams. With a larger value, the "
    "maps depend on the input sooner in training.",
    "loss": "A [negative](glossary.md#negative) is an item that the user did not take next. `bce` asks about the "
    "target and each negative: is it the next item? `gbce` is `bce` with a smaller weight of the target. "
    "`softmax` estimates `ce` from the negatives.",
    "num_negatives": "A [position](glossary.md#position) is the place of an event in a history; at each "
    "position, the model predicts the next item. More negatives teach more, and cost more time.",
    "negatives": "`popularity` draws an item in proportion to its training events. All positions of a batch "
    "share the negatives of `in_batch`.",
    "share_negatives": "Then set num_negatives to hundreds or thousands.",
    "gbce_t": "The bias: with few negatives, `bce` learns probabilities that are too high.",
    "temperature": "Scores in lists are not divided.",
    "skip_own_items": "Lists omit seen items by default, so the scores of these items need not fall. With `ce`, "
    "the sum over the catalogue omits a user's own items.",
    "logq": "Without the correction, the loss favours items that are rarely drawn.",
    "windows": "`random` draws a part of maxlen events again in each epoch, so training reads older events too.",
    "step_unit": "An optimizer step is one update of the weights.",
    "accumulate": "The parts are computed one after the other, and their gradients are added. Then one update "
    "follows, as for the whole batch.",
    "l2_emb": "The authors of TiSASRec use 5e-5.",
    "eval_every": "A validation measures the model on the validation targets, and then saves a checkpoint.",
    "valid_users": "With fewer users, validation is faster, and the choice of the best epoch is less certain.",
    "patience": "[NDCG@10](metrics.md#metrics-of-one-target) is the figure of validation; higher is better.",
    "seed": "Runs that differ only in the seed show how much of a difference is chance.",
    "precision": "`bf16` and `fp16` are half precision, which can be faster: [half "
    "precision](../how-to/large-catalogues.md#half-precision).",
    "compile": "Without a compiler, a warning says so, and training continues without torch.compile.",
    "save_minutes": "If Ctrl-C or SIGTERM ends training, it also saves a checkpoint. `--resume` continues an "
    "interrupted run from its newest checkpoint.",
    "diagnose_every": "[mHC residuals](../explanation/models.md#mhc-residuals) explains the figures of the "
    "streams.",
    "split": "The table below explains the values.",
    "repeats": "Without this setting, an item that the user took before is not a target, and by default not in "
    "lists: [repeats and baskets](../how-to/repeats-and-baskets.md).",
    "baskets": "The model predicts all items of the next basket.",
}
# Settings that break a rule between two settings, one for each rule.
_BREAKING: list[dict[str, Any]] = [
    {"columns": "user,item,time", "user_column": "customer"},
    {"time_format": "%d.%m.%Y", "time_unit": "s"},
    {"num_heads": 3},
    {"accumulate": 256},
    {"l2_emb_tables": "all"},
    {"mhc": True, "mhc_projection": "birkhoff", "mhc_expansion_rate": 5},
    {"gated": True, "mhc": True},
    {"gated": True, "norm": "post"},
    {"mhc": True, "norm": "post"},
    {"loss": "softmax", "share_negatives": True},
]


def regions() -> dict[str, str]:
    """Return the generated parts of the page by name."""
    names = [field.name for field in dataclasses.fields(RunConfig)]
    found = {f"settings {name}": _table_of(part) for name, part in zip(names, PARTS, strict=True)}
    marked = {"resume": MayChangeOnResume, "weights": KeepsWeights}
    for name, kind in marked.items():
        found[f"settings {name}"] = wrapped(", ".join(map(code, sorted(settings_with(PARTS, kind)))) + ".")
    known = {field.name for part in PARTS for field in dataclasses.fields(part)}
    assert known >= _MORE.keys(), "_MORE names a setting that does not exist"
    return found | {"settings rules": _rules_between()}


def _table_of(part: type) -> str:
    texts, kinds = field_texts(part), get_type_hints(part)
    rows = [
        [
            code(field.name),
            _default(field.default),
            _values(kinds[field.name], field),
            _only_with(field),
            linked(f"{texts[field.name]} {_MORE.get(field.name, '')}"),
        ]
        for field in dataclasses.fields(part)
    ]
    head = ["setting", "default", "values", "only with", "meaning"]
    if not any(row[3] for row in rows):  # a section without such rules
        head, rows = [*head[:3], head[4]], [[*row[:3], row[4]] for row in rows]
    return table(head, rows)


def _default(value: Any) -> str:
    if value is None:
        return "none"
    return code(str(value).lower() if isinstance(value, bool) else value if value != "" else '""')


def _values(kind: Any, field: dataclasses.Field[Any]) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(code, get_args(kind)))
    if kind is bool:
        return "`true`, `false`"
    if kind not in (int, float):
        return "text"
    low, high = [each for each in field.metadata.get("rules", ()) if isinstance(each, Ge | Gt | Le | Lt)]
    least = f"from {low.ge:,}" if isinstance(low, Ge) else f"above {low.gt:,}"
    match high:
        case Le(limit):
            most = "" if limit == _MOST else f" to {limit:,}"
        case Lt(limit):
            most = f", below {'2^63' if limit == 2**63 else limit}"
    return f"{'whole number' if kind is int else 'number'} {least}{most}"


def _only_with(field: dataclasses.Field[Any]) -> str:
    """Return the values of other settings without which a setting has no effect, as options of Python."""
    rules = [each for each in field.metadata.get("rules", ()) if isinstance(each, OnlyWith)]
    found = []
    for rule in rules:
        values = ["true" if value is True else str(value) for value in rule.values]
        found.append(f"{code(rule.setting)}: {', '.join(map(code, values))}")
    return "; ".join(found)


def _rules_between() -> str:
    """Return a table of the rules between two settings, each with settings that break it, and the message."""
    assert len(_BREAKING) == len(relations(RunConfig())), "name settings that break the new rule in _BREAKING"
    rows = []
    for settings in _BREAKING:
        try:
            RunConfig().replace(**settings)
        except ConfigError as error:
            shown = ", ".join(f"{name}={value!r}" for name, value in settings.items())
            rows.append([code(shown), str(error)])
    assert len(rows) == len(_BREAKING), "settings of _BREAKING break no rule"
    return table(["settings", "message"], rows)
