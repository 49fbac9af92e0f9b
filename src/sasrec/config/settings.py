"""The configuration of a run: frozen dataclasses, read from TOML recipes, overridden field by field.

Field names are unique across the parts, so an override is just `maxlen=50` or `--maxlen 50`.
"""

from __future__ import annotations

import dataclasses
import difflib
import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_type_hints

import tomli_w
from annotated_types import Ge, Gt, Le, Lt
from pydantic import TypeAdapter, ValidationError

from sasrec.config.fields import (
    KeepsWeights,
    MayChangeOnResume,
    OnlyWith,
    default_of,
    setting,
    settings_with,
    violations,
)
from sasrec.config.mistakes import SHORT, in_words
from sasrec.config.rules import relations
from sasrec.config.split_rule import FILES, split_rule
from sasrec.config.toml_file import tables_of
from sasrec.errors import ConfigError
from sasrec.files import write_whole

TimeUnit: TypeAlias = Literal["auto", "s", "ms", "us", "ns", "iso"]
Duplicates: TypeAlias = Literal["keep", "drop_exact", "first", "last"]


# Bounds that nobody needs to exceed. Larger numbers would overflow somewhere deep in training.
_MOST, _MOST_SIZE = 1_000_000_000, 1_000_000

_SINKHORN = OnlyWith("mhc_projection", ("sinkhorn",))
_SAMPLED = OnlyWith("loss", ("bce", "gbce", "softmax"))


@dataclass(frozen=True)
class DataConfig:
    """Which events to read, and how. If `dataset` is a prepared folder, keep the defaults of all other fields."""

    dataset: str = setting("", MayChangeOnResume())
    """Data to read: name of a public data set (see `sasrec datasets`), a prepared folder, or a file of events."""
    user_column: str | None = None
    """Column of the user ids. Default: recognised by its name (user, user_id, userId, …)."""
    item_column: str | None = None
    """Column of the item ids. Default: recognised by its name (item, item_id, movieId, …)."""
    time_column: str | None = None
    """Column of the times. Default: recognised by its name. Without times, events keep the order of the file."""
    columns: str = ""
    """Role of each column in order, such as user,item,-,time (- ignores); or pairs like session_id:user,0:item."""
    time_unit: TimeUnit = "auto"
    """Unit of the times. auto chooses it by the size of the numbers, and checks that the dates are plausible."""
    time_format: str = ""
    """Format of times that are dates but not ISO 8601, such as %d.%m.%Y %H:%M (codes of Python's strptime)."""
    encoding: str | None = None
    """Encoding of text files, such as cp1252. Default: UTF-8, or UTF-16 where a byte order mark says so."""
    query: str = ""
    """SQL query that reads the events, if `dataset` is the URL of a database such as sqlite:///events.db."""
    where: str = ""
    """Keep only the rows that fulfil this condition in SQL, such as: event = 'purchase' AND rating >= 4."""
    missing: str = r"NA,N/A,NULL,\N,None,NaN,<NA>,#N/A"
    """Values, separated by commas, that mean a missing user or item; upper and lower case count as equal."""
    max_rejects: int = setting(0, Ge(-1), Le(_MOST))
    """Number of bad rows to skip; data with more bad rows is refused. -1 skips any number."""
    duplicates: Duplicates = "keep"
    """What to keep of repeated (user, item) pairs: all, one for each time (drop_exact), the first, or the last."""
    min_user_events: int = setting(0, Ge(0), Le(_MOST))
    """Drop users with fewer events than this, counted after `duplicates` and before `k_core`."""
    min_item_events: int = setting(0, Ge(0), Le(_MOST))
    """Drop items with fewer events than this, counted before min_user_events drops any user."""
    k_core: int = setting(0, Ge(0), Le(_MOST))
    """Drop users and items with fewer than k events, and repeat until all have k events; 0 drops none."""


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of the model, and its sizes."""

    maxlen: int = setting(200, Ge(1), Le(_MOST_SIZE))
    """Number of events that the model reads: the newest events of a history. It ignores older events."""
    hidden_units: int = setting(64, Ge(1), Le(_MOST_SIZE))
    """Width of the model: the number of dimensions of the embeddings and of the output of every layer."""
    num_blocks: int = setting(2, Ge(1), Le(1_000))
    """Number of transformer blocks; each is self-attention followed by a feed-forward layer."""
    num_heads: int = setting(2, Ge(1), Le(_MOST_SIZE))
    """Number of attention heads; it must divide hidden_units."""
    dropout_rate: float = setting(0.2, Ge(0), Lt(1))
    """Dropout probability at the input, in the attention weights and in the feed-forward layers."""
    norm: Literal["pre", "post", "original"] = "pre"
    """Place of LayerNorm: before each sub-layer (pre), after it (post), or as in the paper's code (original)."""
    feed_forward: Literal["relu", "swiglu"] = "relu"
    """Feed-forward layer of a block: two matrices with ReLU between them, or three in a gated unit (swiglu)."""
    feed_forward_width: int = setting(0, Ge(0), Le(_MOST_SIZE))
    """Width inside the feed-forward layer, between its first and last matrix; 0 takes hidden_units."""
    gated: bool = False
    """Multiply the output of each attention and feed-forward layer by a learned gate (LiGR); norm must be pre."""
    time: bool = False
    """Use TiSASRec: attention also reads the time between two events of a user. The data needs times."""
    time_span: int = setting(256, Ge(1), Le(_MOST_SIZE), OnlyWith("time"))
    """Largest time between two events that counts, in units of interval_unit (only with time)."""
    interval_unit: Literal["training", "history"] = setting("training", OnlyWith("time"))
    """Unit of a user's times: the smallest gap in the training part or in the whole history (only with time)."""
    mhc: bool = False
    """Use hyper-connections (mHC), which keep several residual streams instead of one; norm must be pre."""
    mhc_expansion_rate: int = setting(4, Ge(1), Le(1_000), OnlyWith("mhc"))
    """Number of residual streams that mHC keeps (only with mhc); 1 is the plain residual."""
    mhc_projection: Literal["sinkhorn", "birkhoff", "orthogonal"] = setting("sinkhorn", OnlyWith("mhc"))
    """Kind of matrix that mixes streams: rows and columns sum to 1 (sinkhorn, birkhoff), or orthogonal."""
    mhc_sinkhorn_iter: int = setting(20, Ge(1), Le(_MOST_SIZE), OnlyWith("mhc"), _SINKHORN)
    """How often Sinkhorn-Knopp scales columns and rows to sum to 1 (only with mhc_projection sinkhorn)."""
    mhc_init_gate: float = setting(0.01, Ge(-1_000), Le(1_000), OnlyWith("mhc"))
    """Initial factor of the input-dependent part of the mHC maps (docs/explanation/models.md; only with mhc)."""


@dataclass(frozen=True)
class LossConfig:
    """The loss that training minimises, and its negatives."""

    loss: Literal["ce", "bce", "gbce", "softmax"] = "ce"
    """Loss: compare the target with all items (ce), or with some drawn negatives (bce, gbce, softmax)."""
    num_negatives: int = setting(1, Ge(1), Le(_MOST_SIZE), _SAMPLED)
    """Number of negatives to draw for each position, or for the batch if its positions share them; ce has none."""
    negatives: Literal["uniform", "popularity", "in_batch"] = setting("uniform", _SAMPLED)
    """How to draw negatives (ce uses none): uniformly, by popularity, or from the batch's targets (in_batch)."""
    share_negatives: bool = setting(False, _SAMPLED)
    """Draw one set of negatives for a whole batch, which makes thousands of them affordable (ce uses none)."""
    gbce_t: float = setting(0.75, Ge(0), Le(1), OnlyWith("loss", ("gbce",)))
    """Strength of the correction in gbce: 0 is plain bce; 1 removes the whole bias of drawing few negatives."""
    temperature: float = setting(1.0, Gt(0), Le(_MOST))
    """Divide the scores by this number in the loss. Below 1, differences between scores count more."""
    label_smoothing: float = setting(0.0, Ge(0), Lt(1), OnlyWith("loss", ("ce",)))
    """Share of the target's probability that the loss spreads evenly over all candidates (only with ce)."""
    skip_own_items: bool = True
    """Never use the items of a user's training events as negatives for this user; no effect with repeats."""
    logq: bool = setting(True, OnlyWith("loss", ("softmax",)))
    """Correct the scores of negatives by the probability of drawing each item (only with softmax)."""

    @property
    def shared(self) -> bool:
        """Whether all positions of a batch have the same negatives."""
        return self.share_negatives or self.negatives == "in_batch"


@dataclass(frozen=True)
class TrainingConfig:
    """How training minimises the loss, and when it stops."""

    batch_size: int = setting(128, Ge(1), Le(_MOST))
    """Average number of users in a batch. Batches of long histories have fewer users, but about as many events."""
    windows: Literal["last", "random"] = "last"
    """Part of a history longer than maxlen that an epoch uses: the newest events, or a part drawn at random."""
    lr: float = setting(1e-3, Gt(0), Le(_MOST))
    """Base learning rate; warmup_steps and schedule multiply it by a factor from 0 to 1."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Optimizer: Adam, or AdamW, which can also decay weights (see weight_decay)."""
    weight_decay: float = setting(0.0, Ge(0), Le(_MOST), OnlyWith("optimizer", ("adamw",)))
    """Weight decay of the layers' matrices, not of biases, norms, embeddings and residuals (only with adamw)."""
    schedule: Literal["constant", "step", "cosine"] = "constant"
    """Learning rate over time: constant; step, times gamma every step_size; cosine, falling to 0 at num_epochs."""
    step_size: int = setting(20, Ge(1), Le(_MOST), OnlyWith("schedule", ("step",)))
    """Epochs or steps (see step_unit) between two reductions of the learning rate (only with schedule step)."""
    step_unit: Literal["epochs", "steps"] = setting("epochs", OnlyWith("schedule", ("step",)))
    """Unit of step_size: epochs or optimizer steps (only with schedule step)."""
    gamma: float = setting(0.5, Gt(0), Le(1), OnlyWith("schedule", ("step",)))
    """Factor that multiplies the learning rate after every step_size epochs or steps (only with schedule step)."""
    warmup_steps: int = setting(0, Ge(0), Le(_MOST))
    """Number of optimizer steps at the start over which the learning rate rises linearly to lr."""
    clip_norm: float = setting(0.0, Ge(0), Le(_MOST))
    """Scale gradients down to this norm if their norm is larger; 0 never scales."""
    accumulate: int = setting(1, Ge(1), Le(_MOST_SIZE))
    """Gradient accumulation: compute each batch in this many parts, to save memory. Only dropout masks change."""
    l2_emb: float = setting(0.0, Ge(0), Le(_MOST))
    """Weight of the L2 penalty, which adds the sum of the squares of the embeddings to the loss; 0 adds none."""
    l2_emb_tables: Literal["items", "all"] = "items"
    """Embeddings in the L2 penalty (only with l2_emb): items, or all, which adds positions and time intervals."""
    num_epochs: int = setting(200, Ge(1), Le(_MOST), MayChangeOnResume())
    """Maximum number of epochs; an epoch is one pass over all users with two or more training events."""
    stop_epoch: int = setting(0, Ge(0), Le(_MOST), OnlyWith("schedule", ("cosine",)))
    """End training after this epoch, before lr falls to 0; 0 takes num_epochs (only with schedule cosine)."""
    max_minutes: float = setting(0.0, Ge(0), Le(_MOST), MayChangeOnResume())
    """Stop training after this many minutes, validations included; 0 for no limit."""
    eval_every: int = setting(1, Ge(1), Le(_MOST))
    """Number of epochs between two validations."""
    valid_users: int = setting(0, Ge(0), Le(_MOST))
    """Validate during training on this many users, drawn by seed; 0 takes all. The final metrics use all users."""
    patience: int = setting(10, Ge(0), Le(_MOST), MayChangeOnResume())
    """Early stopping: end training after this many validations without a better NDCG@10; 0 never stops early."""
    seed: int = setting(0, Ge(0), Lt(2**63))
    """Random seed of initial weights, batches, negatives and dropout."""
    device: str = setting("auto", KeepsWeights(), MayChangeOnResume())
    """Device to train on: cpu, cuda, cuda:1 or mps; auto takes an accelerator if there is one, else the CPU."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Data type in which layers compute. Weights, mHC residuals and most of the loss stay in fp32."""
    compile: bool = False
    """Train through torch.compile, which speeds up mhc; needs a C++ compiler, and minutes at the first start."""
    deterministic: bool = setting(False, KeepsWeights(), MayChangeOnResume())
    """Use only GPU operators that give the same bits each time, which are slower. CPU operators always do."""
    save_minutes: float = setting(10.0, Ge(0), Le(_MOST), KeepsWeights(), MayChangeOnResume())
    """Minutes between checkpoints, in addition to one after each validation; 0 adds none."""
    detect_anomaly: bool = setting(False, KeepsWeights(), MayChangeOnResume())
    """Let PyTorch name the operation that produced the first NaN of a backward pass; this is much slower."""
    show_shapes: bool = setting(False, KeepsWeights(), MayChangeOnResume())
    """Print the output shape of each layer for the first batch."""
    tensorboard: bool = setting(False, KeepsWeights(), MayChangeOnResume())
    """Also write the numeric values of RUN/log.jsonl to RUN/tensorboard; needs the package tensorboard."""
    diagnose_every: int = setting(0, Ge(0), Le(_MOST), KeepsWeights(), MayChangeOnResume())
    """Steps between diagnostics in log.jsonl: loss, gradient norm, and with mhc its streams; 0 writes none."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Which events are held out from training for evaluation."""

    split: str = "leave-one-out"
    """Which events to hold out: leave-one-out, last-N, temporal:T, files or all (docs/reference/settings.md)."""
    repeats: bool = False
    """Let items come again: seen items are targets, candidates and negatives, and lists contain them."""
    baskets: bool = False
    """Treat a user's events with the same time as one step (a basket): they do not predict each other."""


PARTS = [DataConfig, ModelConfig, LossConfig, TrainingConfig, EvaluationConfig]


@dataclass(frozen=True, repr=False)
class RunConfig:
    """All settings of a run: its data, model, loss, training and evaluation (docs/reference/settings.md)."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        split_rule(self.evaluation.split)
        for sentence in violations([self.data, self.model, self.loss, self.training, self.evaluation]):
            raise ConfigError(sentence)
        for fails, sentence in relations(self):
            if fails:
                raise ConfigError(sentence)

    def __repr__(self) -> str:
        """Return the settings that differ from the defaults, as short text for people."""
        changed = RunConfig().differences(self)
        return f"RunConfig({', '.join(f'{name}={value!r}' for name, (_, value) in changed.items())})"

    def _repr_html_(self) -> str:
        """Return the settings that differ from the defaults as HTML, for notebooks."""
        return f"<code>{html.escape(repr(self))}</code>"

    def replace(self, **overrides: Any) -> RunConfig:
        """Return a copy with other values of some settings, as in `config.replace(maxlen=50, loss="bce")`.

        Raises: ConfigError for an unknown name or a bad value.
        """
        parts = cast(dict[str, dict[str, Any]], dataclasses.asdict(self))
        home = {name: part for part, values in parts.items() for name in values}
        for name, value in overrides.items():
            if name not in home:
                close = difflib.get_close_matches(name, home, n=1)
                hint = f"Did you mean {close[0]}?" if close else f"The settings are: {', '.join(home)}"
                raise ConfigError(f"{name!r} is not a setting. {hint}")
            parts[home[name]][name] = value
        return _validated(parts, "the settings given")

    def differences(self, other: RunConfig) -> dict[str, tuple[Any, Any]]:
        """Return the settings that differ in `other`, as a dictionary: name -> (value here, value in `other`)."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {
            name: (value, theirs[part][name])
            for part, values in mine.items()
            for name, value in values.items()
            if value != theirs[part][name]
        }

    @staticmethod
    def from_parts(parts: dict[str, Any], source: str) -> RunConfig:
        """Return the configuration of a nested dictionary {section: {setting: value}}, such as dataclasses.asdict
        makes from a configuration. `source` is a name for the dictionary in messages.

        Raises: ConfigError if a key is unknown or has a wrong value. The message names the key and `source`.
        """
        return _validated(parts, source)

    @staticmethod
    def load(path: str | Path) -> RunConfig:
        """Read the settings of a recipe, a TOML file. The tables [expected] and [[published]] of the recipe are
        ignored, because they contain metrics and not settings (config/recipe.py).

        Raises: ConfigError for an unreadable file, an unknown key or a wrong type.
        """
        parts = tables_of(Path(path))
        return _validated({k: v for k, v in parts.items() if k not in ("expected", "published")}, str(path))

    def save(self, path: str | Path) -> None:
        """Write the configuration as TOML; `load` then returns an equal configuration."""
        parts = dataclasses.asdict(self)
        set_fields = {part: {k: v for k, v in values.items() if v is not None} for part, values in parts.items()}
        write_whole(Path(path), tomli_w.dumps(set_fields))


KEEP_WEIGHTS = settings_with(PARTS, KeepsWeights)
"""Settings that decide no weight: runs that differ only in these and the random seed are seeds of one model."""
MAY_CHANGE_ON_RESUME = settings_with(PARTS, MayChangeOnResume)
"""Settings that a resumed run may change."""


def split_of_files(config: RunConfig) -> RunConfig:
    """Return the settings for data with own validation or test files, whose split is "files".

    Raises: ConfigError if the settings ask for another split than the default. Remedy: remove one of the two.
    """
    split = config.evaluation.split
    if split not in (default_of(config.evaluation, "split"), FILES):
        raise ConfigError(
            f"split={split} and own validation or test files both say which events are held out. Remove `split`, "
            "or use data without `valid` and `test`."
        )
    return config.replace(split=FILES)


def _refuse_other_kinds(parts: dict[str, Any], source: str) -> None:
    """Raise ConfigError for what pydantic would convert: a truth value or a text for a number, 1 for True."""
    if not isinstance(parts, dict):
        raise ConfigError(f"{source}: the settings must be tables such as [model], not {SHORT.repr(parts)}")
    for part, kind in zip(dataclasses.fields(RunConfig), PARTS, strict=True):
        given = parts.get(part.name)
        kinds = get_type_hints(kind)
        for name, value in given.items() if isinstance(given, dict) else ():
            if type(value) is int and abs(value) >= 2**63:
                raise ConfigError(f"{source}: `{name}` must be below 2**63")
            numeric = kinds.get(name) in (int, float)
            if numeric and isinstance(value, bool | str):
                raise ConfigError(f"{source}: {name} must be a number, not {SHORT.repr(value)}")
            if kinds.get(name) is bool and type(value).__name__ not in ("bool", "bool_"):  # also of NumPy
                raise ConfigError(f"{source}: {name} must be true or false, not {SHORT.repr(value)}")


def _validated(parts: dict[str, Any], source: str) -> RunConfig:
    _refuse_other_kinds(parts, source)
    try:
        # extra="forbid" at every level: a misspelt key must not pass as a default.
        return _ADAPTER.validate_python(parts, strict=False, extra="forbid")
    except ValidationError as error:
        names = {each.name: [field.name for field in dataclasses.fields(part)] for each, part in _SECTIONS}
        raise ConfigError(f"{source}: {in_words(error.errors()[0], names)}") from None


_SECTIONS = list(zip(dataclasses.fields(RunConfig), PARTS, strict=True))
_ADAPTER: TypeAdapter[RunConfig] = TypeAdapter(RunConfig)
