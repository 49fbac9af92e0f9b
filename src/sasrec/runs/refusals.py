"""Settings that must not be trained with, although a run that has them can still be evaluated."""

from __future__ import annotations

from sasrec.config.fields import default_of
from sasrec.config.settings import RunConfig
from sasrec.errors import ConfigError
from sasrec.models.own import OwnCode


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
