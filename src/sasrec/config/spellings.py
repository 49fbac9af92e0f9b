"""Options that do not exist here, and their replacements: those of the published SASRec code, and --train."""

PUBLISHED_SPELLINGS: dict[str, tuple[str, ...]] = {
    "--norm_first": ("--norm", "pre"),
    "--no_norm_first": ("--norm", "post"),
    "--use_amp": ("--precision", "bf16"),
    "--multi_gpu": (),
    "--train": ("--dataset",),
}

OTHER_NAMES = {
    "--lr_decay_step": "--step_size",
    "--lr_decay_rate": "--gamma",
    "--lr_decay": "--gamma",
    "--learning_rate": "--lr",
    "--epochs": "--num_epochs",
    "--num_layers": "--num_blocks",
    "--n_layers": "--num_blocks",
    "--embedding_dim": "--hidden_units",
}
"""Options of other code, and ours of the same meaning, which the message on an unknown option names."""

ROLES = {"user": "user_column", "item": "item_column", "time": "time_column"}
"""The columns as `prepare` names them, and as the settings do; `prepare` takes both, so messages have one name."""

PUBLISHED_FLAGS = frozenset({"--inference_only", "--norm_first", "--use_amp", "--multi_gpu"})
"""Options that take `true` or `false` in published code, and no value here."""
