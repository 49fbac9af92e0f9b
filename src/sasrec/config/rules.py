"""Rules between two settings, which the metadata of one field cannot state (fields.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sasrec.config.fields import default_of

if TYPE_CHECKING:  # settings.py calls this module
    from sasrec.config.settings import RunConfig


def relations(config: RunConfig) -> list[tuple[bool, str]]:
    """Rules between two settings. For each rule: whether the settings break it, and the error message."""
    model, loss, training = config.model, config.loss, config.training
    data = config.data
    columns = [name for name in ("user_column", "item_column") if getattr(data, name) is not None]
    in_order = data.columns and ":" not in data.columns
    has_time = in_order or data.columns.endswith((":time", ":times")) or ":time," in data.columns
    columns += ["time_column"] if data.time_column is not None and has_time else []
    return [
        (
            bool(data.columns and columns),
            f"columns={data.columns!r} names this role, so `{''.join(columns[:1])}` would do nothing. Remove one",
        ),
        (
            bool(data.time_format) and data.time_unit not in ("auto", "iso"),
            f"time_format={data.time_format} is for dates, and time_unit={data.time_unit} for numbers. Remove one",
        ),
        (
            model.num_heads > 0 and model.hidden_units % model.num_heads != 0,
            f"`num_heads` ({model.num_heads}) must divide `hidden_units` ({model.hidden_units}); change one",
        ),
        (
            training.accumulate > training.batch_size,
            f"`accumulate` ({training.accumulate}) must not exceed `batch_size` ({training.batch_size}), because "
            "each part of a batch needs a user",
        ),
        (
            training.l2_emb == 0 and training.l2_emb_tables != default_of(training, "l2_emb_tables"),
            "`l2_emb_tables` does nothing with l2_emb=0; use l2_emb=5e-5, or remove `l2_emb_tables`",
        ),
        (
            model.mhc and model.mhc_projection == "birkhoff" and model.mhc_expansion_rate > 4,
            f"{model.mhc_expansion_rate} streams have too many permutations for birkhoff; "
            "use mhc_expansion_rate=4 or less, or mhc_projection=sinkhorn",
        ),
        (
            model.gated and model.mhc,
            "gated=True and mhc=True are two kinds of residual; use mhc=False, or gated=False",
        ),
        (
            model.gated and model.norm != "pre",
            f"the gated residual is defined for norm=pre only, not norm={model.norm}; "
            "use norm=pre, or gated=False",
        ),
        (
            model.mhc and model.norm != "pre",
            f"mHC is defined for norm=pre only, not norm={model.norm}; use norm=pre, or mhc=False",
        ),
        (
            loss.loss != "ce" and loss.shared and loss.num_negatives == 1,
            "one negative for a whole batch teaches almost nothing; set num_negatives=256 or more",
        ),
    ]
