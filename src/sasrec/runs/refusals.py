"""Settings that must not be trained with, and settings that must not change when a run is resumed."""

from __future__ import annotations

from typing import Any

from sasrec.config.fields import default_of
from sasrec.config.settings import MAY_CHANGE_ON_RESUME, RunConfig
from sasrec.errors import ConfigError
from sasrec.models.own import OwnCode
from sasrec.sources.resolve import prepared_folder


def refuse_to_train(config: RunConfig, own: OwnCode, *, new: bool) -> None:
    """Refuse settings that must not be trained with. An existing run with such settings can still be evaluated.

    `new`: the training is new, not resumed; more settings are refused then.

    Raises: ConfigError. Remedy: the message says which setting to change or remove.
    """
    model, loss, training = config.model, config.loss, config.training
    if new and model.mhc_expansion_rate == 1:
        for name in ("mhc_projection", "mhc_sinkhorn_iter", "mhc_init_gate"):
            if getattr(model, name) != default_of(model, name):
                raise ConfigError(
                    f"`{name}` does nothing with mhc_expansion_rate 1, because one stream is the plain residual. "
                    f"Remove `{name}`."
                )
    if own.loss_function is not None:
        for name in ("temperature", "label_smoothing", "gbce_t"):
            if getattr(loss, name) != default_of(loss, name):
                raise ConfigError(f"`{name}` does nothing with an own `loss_function`. Remove `{name}`.")
    if training.detect_anomaly and training.precision == "fp16":
        raise ConfigError(
            "detect_anomaly would stop at the overflows by which fp16 finds its scale; "
            "use detect_anomaly=False, precision=bf16 or precision=fp32."
        )


def resumed_config(began: RunConfig, recipe: RunConfig | None, settings: dict[str, Any]) -> RunConfig:
    """Return the settings to continue with.

    Raises: ConfigError if a setting differs that must not change. Remedy: keep its value.
    """
    config = (recipe or began).replace(**settings)
    # A prepared folder may have moved; check_data compares the hash of its data later.
    dataset = config.data.dataset
    moved = prepared_folder(dataset)
    if dataset not in ("", began.data.dataset) and moved is None:
        raise ConfigError(
            f"`dataset` was {began.data.dataset!r} when this run began. Only a prepared folder with the same data "
            f"can replace it, but {dataset!r} is not a prepared folder. Remove `dataset`, or name the folder that "
            "the data moved to."
        )
    config = config.replace(dataset=str(moved or began.data.dataset))
    # A cosine schedule depends on the number of epochs, so a change would alter past learning rates.
    frozen = {"num_epochs"} if config.training.schedule == "cosine" else set()
    changed = [
        f"`{name}` was {before!r} when this run began and is {now!r} now"
        for name, (before, now) in began.differences(config).items()
        if name not in MAY_CHANGE_ON_RESUME - frozen
    ]
    if changed:
        raise ConfigError(
            f"{'; '.join(changed)}. Use the old values (if you did not give new ones, config.toml was edited), or "
            "start another run."
        )
    return config
