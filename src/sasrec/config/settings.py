"""The configuration of a run: frozen dataclasses, read from TOML recipes, overridden field by field.

Field names are unique across the parts, so an override is just `maxlen=50` or `--maxlen 50`.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import tomli_w
from pydantic import TypeAdapter, ValidationError

from sasrec.config.split_rule import split_rule
from sasrec.errors import ConfigError
from sasrec.files import write_whole

TimeUnit: TypeAlias = Literal["auto", "s", "ms", "us", "ns"]
Duplicates: TypeAlias = Literal["keep", "drop_exact", "first", "last"]


@dataclass(frozen=True)
class DataConfig:
    """Which events, and how they are read. A folder that is already prepared takes none of the other fields."""

    dataset: str = ""
    """Name of a public data set (`sasrec datasets` lists them), a prepared folder, or a file of events."""
    user_column: str | None = None
    """Column that holds the user id. Default: found by its name (user, user_id, userId, …)."""
    item_column: str | None = None
    """Column that holds the item id. Default: found by its name (item, item_id, movieId, …)."""
    time_column: str | None = None
    """Column that holds the time. Default: found by its name; without one, file order is the order."""
    time_unit: TimeUnit = "auto"
    """Unit of numeric times; auto decides by their size and says so."""
    max_rejects: int = 0
    """How many bad rows to tolerate before refusing the data; -1 for any number."""
    duplicates: Duplicates = "keep"
    """Repeats of a (user, item) pair: keep all, drop rows equal in time too, or keep the first or last."""
    min_user_events: int = 0
    """Drop users with fewer events than this, counted once, on the events read."""
    min_item_events: int = 0
    """Drop items with fewer events than this, counted once, on the events read."""
    k_core: int = 0
    """Drop users and items with fewer than k events, again and again until none is left to drop."""


@dataclass(frozen=True)
class ModelConfig:
    """Which of the models, and its sizes."""

    maxlen: int = 200
    """Longest history the model sees, in events; older ones are cut off."""
    hidden_units: int = 64
    """Width of the embeddings and of every layer."""
    num_blocks: int = 2
    """Blocks of self-attention and feed-forward."""
    num_heads: int = 2
    """Attention heads; must divide hidden_units."""
    dropout_rate: float = 0.2
    """Dropout on the input, the attention weights and the feed-forward layers, in [0, 1)."""
    norm: Literal["pre", "post", "original"] = "pre"
    """Where LayerNorm stands in a block; docs/models.md has the three formulas."""
    time: bool = False
    """Time-interval attention (TiSASRec); the data needs times."""
    time_span: int = 256
    """Longest personal interval that is told apart, in units of the user's own shortest gap (time only)."""
    interval_unit: Literal["training", "history"] = "training"
    """Where a user's shortest gap is taken from: the training part, or, as the authors do, the whole history
    (time only)."""
    mhc: bool = False
    """Manifold-constrained hyper-connections instead of plain residuals; norm must be pre."""
    mhc_expansion_rate: int = 4
    """Residual streams (mhc only); 1 is the plain residual."""
    mhc_projection: Literal["sinkhorn", "birkhoff"] = "sinkhorn"
    """How the mixing of streams is made doubly stochastic: by rounds of Sinkhorn-Knopp, or exactly, as a mean of
    permutations, for at most 4 streams (mhc only)."""
    mhc_sinkhorn_iter: int = 20
    """Rounds of Sinkhorn-Knopp (mhc with sinkhorn only)."""
    mhc_init_gate: float = 0.01
    """Initial weight of the parts of the maps that depend on the input (mhc only)."""


@dataclass(frozen=True)
class LossConfig:
    """What is minimised."""

    loss: Literal["ce", "bce", "gbce", "softmax"] = "ce"
    """ce: cross-entropy over the whole catalogue. Against sampled negatives: bce, binary cross-entropy; gbce, the
    same, calibrated against overconfidence; softmax, which estimates ce. docs/losses.md has the formulas."""
    num_negatives: int = 1
    """Negatives per position, or of a whole batch where they are shared, which takes more than one (not ce)."""
    negatives: Literal["uniform", "popularity", "in_batch"] = "uniform"
    """Drawn alike from the items, in proportion to their training events, or from the batch's own targets, without
    replacement, which are always shared (not ce)."""
    share_negatives: bool = False
    """One draw of num_negatives for all positions of a batch, so that thousands are cheap (not ce)."""
    gbce_t: float = 0.75
    """Calibration: 0 is bce; 1, with own items drawn too, takes back all that sampling adds to the scores (gbce
    only)."""
    temperature: float = 1.0
    """What scores are divided by in the loss."""
    label_smoothing: float = 0.0
    """Share of the target's probability that is spread over all candidates, in [0, 1) (ce only)."""
    skip_own_items: bool = True
    """The user's other training items are no negatives: what one has had is not recommended again, so its score
    need not fall. For lists that may repeat (`recommend --include_seen`) train without."""
    logq: bool = True
    """Correct the negatives' scores by how often each item is drawn (softmax only)."""

    @property
    def shared(self) -> bool:
        """Whether all positions of a batch have the same negatives."""
        return self.share_negatives or self.negatives == "in_batch"


@dataclass(frozen=True)
class TrainingConfig:
    """How it is minimised, and when to stop."""

    batch_size: int = 128
    """Users of mean length in a batch: batches hold about batch_size × mean length positions each."""
    windows: Literal["last", "random"] = "last"
    """Of a history longer than maxlen an epoch trains on the last maxlen events, or on a stretch drawn anew."""
    lr: float = 1e-3
    """Learning rate, before warm-up and schedule."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam, or AdamW, which can decay weights."""
    weight_decay: float = 0.0
    """Decay of the layers' matrices (adamw only); biases, norms, embeddings and mHC are left alone."""
    schedule: Literal["constant", "step", "cosine"] = "constant"
    """How the learning rate goes on: as it is, times gamma every step_size epochs, or down to 0 at num_epochs."""
    step_size: int = 20
    """Epochs between falls of the learning rate (schedule step only)."""
    gamma: float = 0.5
    """Factor by which it falls (schedule step only)."""
    warmup_steps: int = 0
    """Updates over which the learning rate rises to lr."""
    clip_norm: float = 0.0
    """Scale gradients down to this norm when theirs is larger; 0 to leave them."""
    accumulate: int = 1
    """Parts in which a batch passes through the model, to save memory; but for dropout the update is the same."""
    l2_emb: float = 0.0
    """Weight of the sum of squares of the item embedding table in the loss."""
    num_epochs: int = 200
    """Passes over the users, at most."""
    max_minutes: float = 0.0
    """Stop training after this many minutes of wall clock, validation included; 0 for no limit."""
    eval_every: int = 1
    """Epochs between validations."""
    patience: int = 10
    """Stop after this many validations without a better NDCG@10; 0 to never stop early."""
    seed: int = 0
    """Fixes initial values, batches, negatives and dropout."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes an accelerator where there is one."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What the layers compute in, by autocast, and, with bf16, the matrix products of ce; weights, the maps of mHC
    and all else of the loss stay in fp32. fp16 scales the loss against underflow."""
    compile: bool = False
    """Train through torch.compile, which needs a C++ compiler: half a minute at the start, then, with mHC, faster
    steps."""
    save_minutes: float = 10.0
    """Minutes between checkpoints besides those after each validation; 0 for none."""
    detect_anomaly: bool = False
    """Let PyTorch name the operation that made the first NaN of a backward pass; much slower."""
    show_shapes: bool = False
    """Print the shape of what each layer gives for the first batch."""
    tensorboard: bool = False
    """Also write what log.jsonl has to RUN/tensorboard; needs the package tensorboard."""
    diagnose_every: int = 0
    """Steps between `diagnostics` events in log.jsonl: loss, gradient norm and, with mHC, for each sub-layer the
    sums of H_res and the diversity and gain of the streams; 0 for none."""


@dataclass(frozen=True)
class EvaluationConfig:
    """What is held out from training, to measure on."""

    split: str = "leave-one-out"
    """leave-one-out; last-N (last-2): a user's last N events are for test, the N before for validation;
    temporal:WHEN: test begins at that ISO date, or after that fraction of all events (temporal:0.9);
    temporal:T1,T2 also says where validation begins."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the outcome of a run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        split_rule(self.evaluation.split)
        for wrong, remedy in _contradictions(self):
            if wrong:
                raise ConfigError(remedy)

    def replace(self, **overrides: Any) -> RunConfig:
        """A copy with fields changed by their flat names, as in `config.replace(maxlen=50, loss="bce")`.

        Raises: ConfigError for a name that is no field (the closest ones are named) or a bad value.
        """
        parts = cast(dict[str, dict[str, Any]], dataclasses.asdict(self))
        home = {name: part for part, values in parts.items() for name in values}
        for name, value in overrides.items():
            if name not in home:
                raise ConfigError(f"there is no setting named {name!r}; the settings are: {', '.join(home)}")
            parts[home[name]][name] = value
        return _validated(parts, "the settings given")

    def differences(self, other: RunConfig) -> dict[str, tuple[Any, Any]]:
        """Flat names of the fields that differ, with both values."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {
            name: (value, theirs[part][name])
            for part, values in mine.items()
            for name, value in values.items()
            if value != theirs[part][name]
        }

    @staticmethod
    def from_parts(parts: dict[str, Any], source: str) -> RunConfig:
        """The inverse of dataclasses.asdict.

        Raises: ConfigError naming `source` and the key that is unknown or wrong.
        """
        return _validated(parts, source)

    @staticmethod
    def load(path: str | Path) -> RunConfig:
        """Read a recipe. Unknown keys and wrong types are refused; what it says it gives (reproduction.py) is not
        a setting.

        Raises: ConfigError naming the file and the key.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"the recipe {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"the recipe {path} is not UTF-8 text: {error.reason}") from None
        try:
            parts = tomllib.loads(text)
            return _validated({k: v for k, v in parts.items() if k not in ("expected", "published")}, str(path))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write as TOML that `load` reads back equal."""
        parts = dataclasses.asdict(self)
        set_fields = {part: {k: v for k, v in values.items() if v is not None} for part, values in parts.items()}
        write_whole(Path(path), tomli_w.dumps(set_fields))


# Settings by which no weight changes: runs that differ in these and the seed alone are seeds of one model.
NO_WEIGHT = ("device", "save_minutes", "detect_anomaly", "show_shapes", "tensorboard", "diagnose_every")

_AT_LEAST = {
    "max_rejects": -1,
    **dict.fromkeys(("min_user_events", "min_item_events", "k_core"), 0),
    **dict.fromkeys(("maxlen", "hidden_units", "num_blocks", "num_heads", "time_span"), 1),
    **dict.fromkeys(("mhc_expansion_rate", "mhc_sinkhorn_iter", "num_negatives"), 1),
    **dict.fromkeys(("batch_size", "accumulate", "step_size", "num_epochs", "eval_every"), 1),
    **dict.fromkeys(("weight_decay", "l2_emb", "warmup_steps", "clip_norm"), 0),
    **dict.fromkeys(("max_minutes", "patience", "save_minutes", "diagnose_every", "seed"), 0),
}


def _contradictions(config: RunConfig) -> list[tuple[bool, str]]:
    values = {name: value for part in dataclasses.asdict(config).values() for name, value in part.items()}
    return [
        # Not `<`, which lets NaN pass.
        *(
            (not low <= values[name] < math.inf, f"{name} must be at least {low} and finite, not {values[name]}")
            for name, low in _AT_LEAST.items()
        ),
        *_contradictions_of_model(config.model),
        *_contradictions_of_loss(config.loss),
        *_contradictions_of_training(config.training),
    ]


def _contradictions_of_model(model: ModelConfig) -> list[tuple[bool, str]]:
    mhc_settings = (model.mhc_expansion_rate, model.mhc_projection, model.mhc_sinkhorn_iter, model.mhc_init_gate)
    return [
        (
            model.num_heads > 0 and model.hidden_units % model.num_heads != 0,
            f"num_heads ({model.num_heads}) must divide hidden_units ({model.hidden_units})",
        ),
        (not 0 <= model.dropout_rate < 1, f"dropout_rate must be in [0, 1), not {model.dropout_rate}"),
        (
            not model.time and (model.time_span, model.interval_unit) != (256, "training"),
            "time_span and interval_unit do nothing without time: use --time (time=True)",
        ),
        (
            not model.mhc and mhc_settings != (4, "sinkhorn", 20, 0.01),
            "mhc_expansion_rate, mhc_projection, mhc_sinkhorn_iter and mhc_init_gate do nothing without mHC: "
            "use --mhc (mhc=True)",
        ),
        (not math.isfinite(model.mhc_init_gate), f"mhc_init_gate must be finite, not {model.mhc_init_gate}"),
        (
            model.mhc_projection == "birkhoff" and model.mhc_expansion_rate > 4,
            f"{model.mhc_expansion_rate} streams have too many permutations for birkhoff: "
            "use mhc_expansion_rate 4 or less, or --mhc_projection sinkhorn",
        ),
        (
            model.mhc_projection == "birkhoff" and model.mhc_sinkhorn_iter != 20,
            "mhc_sinkhorn_iter does nothing with mhc_projection birkhoff",
        ),
        (
            model.mhc and model.norm != "pre",
            f"mHC is defined for norm pre only, not {model.norm}: use --norm pre, or --no_mhc",
        ),
    ]


def _contradictions_of_loss(loss: LossConfig) -> list[tuple[bool, str]]:
    return [
        (
            loss.loss == "ce" and (loss.num_negatives != 1 or loss.negatives != "uniform" or loss.shared),
            "num_negatives, negatives and share_negatives do nothing with loss ce, whose negatives are all items: "
            "use --loss bce, gbce or softmax",
        ),
        (
            loss.loss != "ce" and loss.shared and loss.num_negatives == 1,
            "one negative for a whole batch teaches next to nothing: give --num_negatives, such as 256",
        ),
        (
            loss.loss != "gbce" and loss.gbce_t != 0.75,
            f"gbce_t does nothing with loss {loss.loss}: use --loss gbce",
        ),
        (
            loss.loss != "ce" and loss.label_smoothing != 0,
            f"label_smoothing is for loss ce, not {loss.loss}: use --loss ce",
        ),
        (
            loss.loss != "softmax" and not loss.logq,
            f"logq does nothing with loss {loss.loss}: leave it, or use --loss softmax",
        ),
        (not 0 <= loss.gbce_t <= 1, f"gbce_t must be from 0 to 1, not {loss.gbce_t}"),
        (not 0 < loss.temperature < float("inf"), f"temperature must be above 0, not {loss.temperature}"),
        (not 0 <= loss.label_smoothing < 1, f"label_smoothing must be in [0, 1), not {loss.label_smoothing}"),
    ]


def _contradictions_of_training(training: TrainingConfig) -> list[tuple[bool, str]]:
    return [
        (not 0 < training.lr < math.inf, f"lr must be above 0 and finite, not {training.lr}"),
        (
            training.weight_decay > 0 and training.optimizer != "adamw",
            "weight_decay is for optimizer adamw: use --optimizer adamw",
        ),
        (
            training.schedule != "step" and (training.step_size, training.gamma) != (20, 0.5),
            f"step_size and gamma do nothing with schedule {training.schedule}: use --schedule step",
        ),
        (not 0 < training.gamma <= 1, f"gamma must be above 0 and at most 1, not {training.gamma}"),
        (training.seed >= 2**63, f"seed must be below 2^63, not {training.seed}"),
    ]


def _validated(parts: dict[str, Any], source: str) -> RunConfig:
    try:
        # extra="forbid" at every level: a misspelt key must not pass as a default.
        return _ADAPTER.validate_python(parts, strict=False, extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise ConfigError(f"{source}: {where}: {first['msg']} (found {first['input']!r})") from None


_ADAPTER: TypeAdapter[RunConfig] = TypeAdapter(RunConfig)
