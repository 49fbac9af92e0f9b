"""Options that do not exist here, and their replacements: those of the published SASRec code, and --train."""

PUBLISHED_SPELLINGS: dict[str, tuple[str, ...]] = {
    "--norm_first": ("--norm", "pre"),
    "--no_norm_first": ("--norm", "post"),
    "--use_amp": ("--precision", "bf16"),
    "--multi_gpu": (),
    "--train": ("--dataset",),
}

ROLES = {"user": "user_column", "item": "item_column", "time": "time_column"}
"""The columns as `prepare` names them, and as the settings do; `prepare` takes both, so messages have one name."""

PUBLISHED_FLAGS = frozenset({"--inference_only", "--norm_first", "--use_amp", "--multi_gpu"})
"""Options that take `true` or `false` in published code, and no value here."""
