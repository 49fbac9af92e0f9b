"""Options of the published PyTorch code that do not exist here, each with the arguments that replace it."""

PUBLISHED_SPELLINGS: dict[str, tuple[str, ...]] = {
    "--norm_first": ("--norm", "pre"),
    "--no_norm_first": ("--norm", "post"),
    "--use_amp": ("--precision", "bf16"),
    "--multi_gpu": (),
}
