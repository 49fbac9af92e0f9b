"""What the server sends about its models and itself, and its errors, for openapi.py to describe.

As in answer_schemas.py, a field whose default is UNSET can be absent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from sasrec.serving.answer_schemas import Count, RequestId

_Metrics = dict[str, float | None]
_Ends = Annotated[list[float], Meta(min_length=2, max_length=2)]  # generators of clients know lists, not tuples


class DataFacts(Struct, forbid_unknown_fields=True, kw_only=True):
    """The data that a model was trained on. Absent for exports."""

    name: Annotated[str, Meta(description="The name of the data set.")]
    events: Annotated[Count, Meta(description="How many events it has.")]
    first_event: Annotated[str | None, Meta(description="The time of the first event, UTC. null: no times.")]
    last_event: Annotated[str | None, Meta(description="The time of the last event, UTC. null: no times.")]


class Protocol(Struct, forbid_unknown_fields=True, kw_only=True):
    """How the metrics were measured, in words for people. Absent as `metrics`."""

    full: Annotated[str | None, Meta(description="Which items compete. null: not recorded.")]
    seen: Annotated[str | None, Meta(description="How items of the history are treated. null: not recorded.")]
    split: Annotated[str | None, Meta(description="Which events are predicted. null: not recorded.")]


class ModelFacts(Struct, forbid_unknown_fields=True, kw_only=True):
    """A model that is served."""

    name: Annotated[str, Meta(description="The name of the model, for `model` in requests.")]
    hash: Annotated[str, Meta(description="Identifies the weights, or the data of a baseline.")]
    share: Annotated[
        float, Meta(ge=0, le=1, description="The share of users that get this model unless they name one.")
    ]
    kind: Annotated[str, Meta(description="The class of the model, or the words of an export for it.")]
    source: Annotated[
        str, Meta(description="What `source` says in its lists, if an item of the history is known.")
    ]
    timed: Annotated[bool, Meta(description="Whether requests with a `history` need `times`.")]
    maxlen: Annotated[int | None, Meta(description="How many last events the model reads. null: a baseline.")]
    repeats: Annotated[
        bool, Meta(description="Whether lists have seen items unless `exclude_seen` says otherwise.")
    ]
    items: Annotated[Count, Meta(description="How many items the catalogue has.")]
    users: Annotated[Count, Meta(description="How many users the data has; 0 for exports.")]
    parameters: Annotated[int | None, Meta(description="How many weights. null: a baseline or an ONNX export.")]
    loaded: Annotated[str, Meta(description="When it was loaded: ISO 8601, UTC.")]
    columns: Annotated[
        dict[str, str], Meta(description='The columns for `filters`, each with "number" or "text".')
    ]
    check: Annotated[
        dict[str, Any] | UnsetType,
        Meta(description="How an ONNX export was compared with its run. Absent for other models."),
    ] = UNSET
    data: DataFacts | UnsetType = UNSET
    metrics: Annotated[
        _Metrics | UnsetType,
        Meta(
            description="The full metrics, such as `ndcg@10`, and the `split` on which they were measured. "
            "Absent: not measured, or an export.",
            extra_json_schema={
                "properties": {"split": {"description": "Where they were measured.", "enum": ["test", "valid"]}},
                "required": ["split"],
            },
        ),
    ] = UNSET
    intervals: Annotated[
        dict[str, _Ends] | UnsetType,
        Meta(description="Metric to the low and high end of its confidence interval. Absent: not computed."),
    ] = UNSET
    baselines: Annotated[
        dict[str, _Metrics] | UnsetType, Meta(description="Baseline to its metrics. Absent as `metrics`.")
    ] = UNSET
    protocol: Protocol | UnsetType = UNSET


class ModelsAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """What the server serves."""

    request_id: RequestId
    models: Annotated[list[ModelFacts], Meta(description="The models that are served.")]
    rules: Annotated[list[str], Meta(description="The names that `rules` of a request can have.")]
    fallback: Annotated[
        str | None, Meta(description="What answers if no item of a history is known. null: such requests get 422.")
    ]


class Reloaded(Struct, forbid_unknown_fields=True, kw_only=True):
    """A model that was loaded again."""

    name: Annotated[str, Meta(description="The name of the model.")]
    old: Annotated[str, Meta(description="The hash of the model before.")]
    new: Annotated[str, Meta(description="The hash of the model now; the same if its path has the same model.")]


class ReloadAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """The models that were loaded again."""

    request_id: RequestId
    reloaded: Annotated[list[Reloaded], Meta(description="The models that were loaded again, in order.")]


class Health(Struct, forbid_unknown_fields=True, kw_only=True):
    """The process answers."""

    request_id: RequestId
    status: Annotated[Literal["ok"], Meta(description="Always `ok`.")]


class ModelReadiness(Struct, forbid_unknown_fields=True, kw_only=True):
    """Whether a model answers a fixed request."""

    ready: Annotated[bool, Meta(description="Whether it answers.")]
    reason: Annotated[str | UnsetType, Meta(description="Why it does not, for people. Absent if it does.")] = UNSET


class StoreState(Struct, forbid_unknown_fields=True, kw_only=True):
    """The store of events."""

    ready: Annotated[bool, Meta(description="Whether its last use was without an error.")]


class Readiness(Struct, forbid_unknown_fields=True, kw_only=True):
    """Whether the server should get requests. It has status 200 if `ready`, else 503."""

    request_id: RequestId
    ready: Annotated[bool, Meta(description="Whether every model answers, and the server does not stop.")]
    draining: Annotated[bool, Meta(description="Whether the server is about to stop.")]
    models: Annotated[dict[str, ModelReadiness], Meta(description="The name of each model to its state.")]
    store: Annotated[
        StoreState | UnsetType,
        Meta(
            description="The store of events. It does not decide about `ready`, because lists for a `history` do "
            "not need it. Absent without a store."
        ),
    ] = UNSET


class ErrorFacts(Struct, forbid_unknown_fields=True, kw_only=True):
    """What is wrong."""

    code: Annotated[
        Literal[
            "baseline", "encoded", "ending", "fault", "foreign_host", "invalid", "model", "no_token", "nobody",
            "not_found", "not_http", "not_json", "nothing_known", "overloaded", "slow_body", "store", "too_large",
            "unfit_rules", "unfit_times", "unknown", "unsound", "wrong_method", "wrong_scope",
        ],
        Meta(description="What is wrong, for programs; the responses describe each code."),
    ]  # fmt: skip
    message: Annotated[
        str, Meta(description="What is wrong and what to do, for people. It repeats nothing of the request.")
    ]


class Error(Struct, forbid_unknown_fields=True, kw_only=True):
    """An error."""

    error: ErrorFacts
    request_id: RequestId
