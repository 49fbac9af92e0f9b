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
    """Facts about the data on which a model was trained. GET /v1/models gives no facts for an export."""

    name: Annotated[str, Meta(description="The name of the data set.")]
    events: Annotated[Count, Meta(description="How many events the data set has.")]
    first_event: Annotated[
        str | None, Meta(description="The time of the first event, UTC. null: the data has no times.")
    ]
    last_event: Annotated[
        str | None, Meta(description="The time of the last event, UTC. null: the data has no times.")
    ]


class Protocol(Struct, forbid_unknown_fields=True, kw_only=True):
    """A description of how the metrics of a model were measured, as text for people. GET /v1/models gives no
    description for an export, or for a run that was not measured.
    """

    full: Annotated[str | None, Meta(description="Which items each target was ranked among. null: not recorded.")]
    seen: Annotated[
        str | None, Meta(description="Whether items of the history are ranked too. null: not recorded.")
    ]
    split: Annotated[
        str | None, Meta(description="Which held-out events the model had to predict. null: not recorded.")
    ]


class ModelFacts(Struct, forbid_unknown_fields=True, kw_only=True):
    """Facts about a model that the server serves."""

    name: Annotated[str, Meta(description="The name of the model, for `model` in requests.")]
    hash: Annotated[
        str,
        Meta(
            description="Identifies the weights of the model, or for a baseline the run and its name. It "
            "changes when a reload brings other weights."
        ),
    ]
    share: Annotated[
        float,
        Meta(ge=0, le=1, description="The share of users that get this model, if the request names no model."),
    ]
    kind: Annotated[
        str,
        Meta(
            description="The class of the model or baseline, such as SASRec; for an ONNX export, the value of "
            "`model` in its file graph.json."
        ),
    ]
    source: Annotated[
        str,
        Meta(description="The value of `source` in the lists of this model, if an item of the history is known."),
    ]
    timed: Annotated[
        bool, Meta(description="Whether the model reads times, so that requests with a `history` need `times`.")
    ]
    maxlen: Annotated[
        int | None,
        Meta(description="How many events of a history the model reads: the newest ones. null: a baseline."),
    ]
    repeats: Annotated[
        bool,
        Meta(
            description="Whether lists may have items of the history, if the request does not set `exclude_seen`."
        ),
    ]
    items: Annotated[Count, Meta(description="How many items the catalogue has.")]
    users: Annotated[
        Count, Meta(description="How many users the data has. 0 for exports, which contain no users.")
    ]
    parameters: Annotated[
        int | None, Meta(description="How many weights the model has. null: a baseline or an ONNX export.")
    ]
    loaded: Annotated[str, Meta(description="When the server loaded the model: ISO 8601, UTC.")]
    columns: Annotated[
        dict[str, str],
        Meta(
            description='The columns of the catalogue that `filters` can name. Each has its type: "number" '
            'or "text".'
        ),
    ]
    check: Annotated[
        dict[str, Any] | UnsetType,
        Meta(
            description="How the lists of an ONNX export compared with the lists of its run. Absent for "
            "other models."
        ),
    ] = UNSET
    data: DataFacts | UnsetType = UNSET
    metrics: Annotated[
        _Metrics | UnsetType,
        Meta(
            description="The metrics of the full catalogue, such as `ndcg@10`, and the `split` on which "
            "they were measured. Absent: the model was not measured, or is an export.",
            extra_json_schema={
                "properties": {
                    "split": {"description": "Where the metrics were measured.", "enum": ["test", "valid"]}
                },
                "required": ["split"],
            },
        ),
    ] = UNSET
    intervals: Annotated[
        dict[str, _Ends] | UnsetType,
        Meta(
            description="For NDCG@10, HR@10 and MRR, the low and the high end of the 95 % confidence "
            "interval. Absent: not computed."
        ),
    ] = UNSET
    baselines: Annotated[
        dict[str, _Metrics] | UnsetType,
        Meta(
            description="For each baseline of the run, its metrics on the same `split`. Absent if the run "
            "was not measured, or for an export."
        ),
    ] = UNSET
    protocol: Protocol | UnsetType = UNSET


class ModelsAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """The models, rules and fallback of the server."""

    request_id: RequestId
    models: Annotated[list[ModelFacts], Meta(description="The models that are served.")]
    rules: Annotated[
        list[str], Meta(description="The names of rules, one of which the field `rules` of a request can have.")
    ]
    fallback: Annotated[
        str | None,
        Meta(
            description="The fallback: what answers if no item of a history is known. null: such requests "
            "get the status 422, and requests for an unknown user the status 404."
        ),
    ]


class Reloaded(Struct, forbid_unknown_fields=True, kw_only=True):
    """A model that was loaded again."""

    name: Annotated[str, Meta(description="The name of the model.")]
    old: Annotated[str, Meta(description="The hash of the model before the reload.")]
    new: Annotated[
        str,
        Meta(
            description="The hash of the model now. It is the same as `old` if the path has the same model "
            "as before."
        ),
    ]


class ReloadAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """The list of the models that were loaded again."""

    request_id: RequestId
    reloaded: Annotated[list[Reloaded], Meta(description="The models that were loaded again, in order.")]


class Health(Struct, forbid_unknown_fields=True, kw_only=True):
    """A confirmation that the process of the server runs."""

    request_id: RequestId
    status: Annotated[Literal["ok"], Meta(description="Always `ok`.")]


class ModelReadiness(Struct, forbid_unknown_fields=True, kw_only=True):
    """The state of a model, which is ready if it answers a fixed test request (a canary)."""

    ready: Annotated[bool, Meta(description="Whether the model answers the request.")]
    reason: Annotated[
        str | UnsetType, Meta(description="Why the model does not answer, for people. Absent if it answers.")
    ] = UNSET


class StoreState(Struct, forbid_unknown_fields=True, kw_only=True):
    """The state of the store, in which the server keeps the events of POST /v1/events."""

    ready: Annotated[bool, Meta(description="Whether the last use of the store was without an error.")]


class Readiness(Struct, forbid_unknown_fields=True, kw_only=True):
    """The state of the server. If `ready` is true, the status is 200, and a load balancer should send requests to
    the server. If `ready` is false, the status is 503.
    """

    request_id: RequestId
    ready: Annotated[bool, Meta(description="Whether every model answers, and the server is not about to stop.")]
    draining: Annotated[bool, Meta(description="Whether the server is about to stop.")]
    models: Annotated[dict[str, ModelReadiness], Meta(description="The state of each model, by its name.")]
    store: Annotated[
        StoreState | UnsetType,
        Meta(
            description="The store of events. It does not decide about `ready`, because lists for a "
            "`history` do not need the store. Absent if the server has no store."
        ),
    ] = UNSET


class ErrorFacts(Struct, forbid_unknown_fields=True, kw_only=True):
    """The cause of an error, as a code for programs and as a message for people."""

    code: Annotated[
        Literal[
            "baseline", "encoded", "ending", "fault", "foreign_host", "invalid", "model", "no_token", "nobody",
            "not_found", "not_http", "not_json", "nothing_known", "overloaded", "slow_body", "store", "too_large",
            "unfit_rules", "unfit_times", "unknown", "unsound", "wrong_method", "wrong_scope",
        ],
        Meta(description="The kind of error, for programs. The statuses of errors explain each code."),
    ]  # fmt: skip
    message: Annotated[
        str,
        Meta(description="What is wrong and what to do, for people. The message repeats nothing of the request."),
    ]


class Error(Struct, forbid_unknown_fields=True, kw_only=True):
    """Each answer that is an error has this object as its body, except an answer of GET /readyz with the status
    503.
    """

    error: ErrorFacts
    request_id: RequestId
