"""Options of the published PyTorch code under other names: what each stands for here."""

PUBLISHED_SPELLINGS: dict[str, tuple[str, ...]] = {
    "--norm_first": ("--norm", "pre"),
    "--no_norm_first": ("--norm", "post"),
    "--use_amp": ("--precision", "bf16"),
    "--multi_gpu": (),
}
