"""What the server sends to requests for lists, events and items, for openapi.py to describe.

The routes do not make their answers from these types. A field whose default is UNSET can be absent.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

RequestId = Annotated[str, Meta(description="The id of the request, the same as in the header X-Request-Id.")]
_Item = Annotated[
    str | int, Meta(description="The item id: text, or an integer if the ids of the data are integers.")
]
_Score = Annotated[
    float,
    Meta(
        description="The score by which the list is ordered: higher is better. The number that a model "
        "gives has no meaning by itself, only the order of scores."
    ),
]
_Effect = Annotated[
    float,
    Meta(
        description="How much the event raises the score of the item: the score with the event minus "
        "the score without it. A negative effect means that the event lowers the score. For a blend, "
        "the score is that of its model."
    ),
]
Count = Annotated[int, Meta(ge=0)]


class ModelId(Struct, forbid_unknown_fields=True):
    """The model that answered."""

    name: Annotated[str, Meta(description="The name of the model, as in the answer of GET /v1/models.")]
    hash: Annotated[
        str,
        Meta(
            description="Identifies the weights of the model, or for a baseline the run and its name. It "
            "changes when a reload brings other weights."
        ),
    ]


class Named(Struct, forbid_unknown_fields=True, kw_only=True):
    """An item."""

    item: _Item
    title: Annotated[
        str | UnsetType | None,
        Meta(
            description="The title of the item. null: unknown. Absent if the catalogue has no titles, or if a "
            "request to POST /v1/recommend does not have `titles` true."
        ),
    ] = UNSET
    group: Annotated[
        str | UnsetType | None,
        Meta(
            description="The group of the item, such as a genre. null: unknown. Absent if the catalogue has "
            "no groups, or if a request to POST /v1/recommend does not have `titles` true."
        ),
    ] = UNSET


class Reason(Named, forbid_unknown_fields=True, kw_only=True):
    """An event of the history that raises the score of an item."""

    effect: _Effect


class ListItem(Named, forbid_unknown_fields=True, kw_only=True):
    """An item of a list."""

    score: _Score
    rank: Annotated[int, Meta(ge=1, description="The place of the item in the list; 1 is the best.")]
    reasons: Annotated[
        Annotated[list[Reason], Meta(max_length=3)] | UnsetType,
        Meta(
            description="The events that raise the score most, the largest effect first. Absent: the "
            "request did not have `reasons` true, or a baseline or the fallback gives the list.",
        ),
    ] = UNSET


class ListAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """A list of items, the best first."""

    request_id: RequestId
    user: Annotated[
        str | int | UnsetType, Meta(description="The user of the request. Absent if the request names no user.")
    ] = UNSET
    model: ModelId
    source: Annotated[
        str,
        Meta(
            description="What ranked the items. `model` is the trained model, and `blend` combines the "
            "model with a baseline. The name of a baseline, such as `markov`, appears if the server "
            "serves this baseline. `popular`, `recent` or `groups` is the fallback, which "
            "answers if no item of the history is known."
        ),
    ]
    items: Annotated[
        list[ListItem],
        Meta(
            description="The items, the best first: at most `k`. There are fewer if `history`, `allow`, "
            "`deny` and rules leave fewer items."
        ),
    ]
    known: Annotated[
        Count,
        Meta(
            description="How many events of the history have an item that the model knows. 0: the fallback "
            "answers, and `source` names it."
        ),
    ]
    unknown: Annotated[
        list[str],
        Meta(
            max_length=10,
            description="Ids of the history that the model does not know and ignores, as text, at most "
            "ten. With some splits, such as `temporal`, an item of the catalogue without a training event "
            "is unknown too; it is listed only if the request has `history`.",
        ),
    ]
    notes: Annotated[
        list[str],
        Meta(
            description="Sentences for people: why the fallback gives the list, or why the list has fewer "
            "than `k` items. Usually empty."
        ),
    ]


class ListsAnswer(Struct, forbid_unknown_fields=True):
    """An answer with one list for each request."""

    answers: Annotated[list[ListAnswer], Meta(description="The answer to each of `requests`, in the same order.")]
    request_id: RequestId


class SimilarItem(Named, forbid_unknown_fields=True, kw_only=True):
    """An item that is similar to the item of the request."""

    score: Annotated[
        float,
        Meta(description="The cosine of the vectors of both items, from -1 to 1. Higher means more similar."),
    ]


class SimilarAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """The items that are most similar to the item of the request."""

    request_id: RequestId
    model: ModelId
    items: Annotated[
        list[SimilarItem], Meta(description="The items, the most similar first, without the item of the request.")
    ]


class EventEffect(Named, forbid_unknown_fields=True, kw_only=True):
    """An event of the history, and its effect on the score of the item."""

    effect: _Effect
    interval_effect: Annotated[
        float | UnsetType,
        Meta(
            description="How much the time between the event before and this event raises the score: the "
            "score minus the score with both events at the same time. Absent for the first "
            "event, and for models that read no times."
        ),
    ] = UNSET


class ExplainAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """The effect of each event of a history on the score of the item."""

    request_id: RequestId
    model: ModelId
    item: Annotated[str | int, Meta(description="The item of the request.")]
    events: Annotated[
        list[EventEffect],
        Meta(
            description="The known events that the model reads, oldest first. These are at most the last "
            "`maxlen` events, a number that GET /v1/models states."
        ),
    ]


class EventsAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """The numbers of events that were stored and not stored."""

    request_id: RequestId
    stored: Annotated[Count, Meta(description="How many events were stored.")]
    repeated: Annotated[
        Count,
        Meta(
            description="How many events were not stored, because the user already had an event with the "
            "same `id`."
        ),
    ]
    unknown_items: Annotated[
        Count,
        Meta(description="How many of the events have an item that is in the catalogue of no model."),
    ]


class PastEvent(Named, forbid_unknown_fields=True, kw_only=True):
    """An event of a user."""

    source: Annotated[
        Literal["run", "events"],
        Meta(
            description="Where the event comes from: `run` means the data that the model was trained on, "
            "and `events` means POST /v1/events."
        ),
    ] = field(name="from")
    time: Annotated[
        float | UnsetType,
        Meta(
            description="When the event happened, in seconds (not milliseconds) since 1970 UTC. Absent for "
            "an event of `run` if the data has no times."
        ),
    ] = UNSET


class UserAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """The history of a user."""

    request_id: RequestId
    user: Annotated[str, Meta(description="The id of the user, as in the path.")]
    model: Annotated[str, Meta(description="The name of the model that answers requests for this user.")]
    history: Annotated[
        list[PastEvent],
        Meta(
            max_length=1_000,
            description="The last 1,000 events of the user with items of the model's catalogue, oldest first.",
        ),
    ]
    total: Annotated[
        Count, Meta(description="How many events with items of the catalogue the user has, also beyond 1,000.")
    ]


class ForgetAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """A confirmation that the user is forgotten."""

    request_id: RequestId
    forgotten: Annotated[bool, Meta(description="Always true, also for an unknown user.")]


class CatalogueItem(Named, forbid_unknown_fields=True, kw_only=True):
    """An item of the catalogue."""

    events: Annotated[
        Count,
        Meta(
            description="How many events of the data have this item, a measure of its popularity. 0 for "
            "exports without counts."
        ),
    ]


class ItemsAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """The found items of the catalogue."""

    request_id: RequestId
    items: Annotated[
        list[CatalogueItem],
        Meta(
            description="The items that have all words of `query`, the most popular first. With `id`, the "
            "items with these ids instead, in the same order; unknown ids are omitted."
        ),
    ]
    total: Annotated[Count, Meta(description="How many items were found in total, also those beyond `limit`.")]
