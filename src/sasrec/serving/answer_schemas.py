"""What the server sends to requests for lists, events and items, for openapi.py to describe.

The routes do not make their answers from these types. A field whose default is UNSET can be absent.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

RequestId = Annotated[str, Meta(description="The same as in the header X-Request-Id.")]
_Item = Annotated[
    str | int, Meta(description="The item id: text, or an integer if the ids of the data are integers.")
]
_Score = Annotated[
    float, Meta(description="The score by which the list is ordered; only its order has a meaning.")
]
_Effect = Annotated[
    float,
    Meta(
        description="How much the event raises the score of the item: the score minus that without the event. "
        "Negative if it lowers the score."
    ),
]
Count = Annotated[int, Meta(ge=0)]


class ModelId(Struct, forbid_unknown_fields=True):
    """The model that answered."""

    name: Annotated[str, Meta(description="The name of the model, as in the answer of GET /v1/models.")]
    hash: Annotated[
        str,
        Meta(description="Identifies the weights, or the data of a baseline. Other weights have another one."),
    ]


class Named(Struct, forbid_unknown_fields=True, kw_only=True):
    """An item."""

    item: _Item
    title: Annotated[
        str | UnsetType | None,
        Meta(
            description="The title. null: unknown. Absent: the catalogue has no titles, or the request did not "
            "ask for them."
        ),
    ] = UNSET
    group: Annotated[
        str | UnsetType | None,
        Meta(
            description="The group, such as a genre. null: unknown. Absent: the catalogue has no groups, or the "
            "request did not ask for them."
        ),
    ] = UNSET


class Reason(Named, forbid_unknown_fields=True, kw_only=True):
    """An event of the history that speaks for an item."""

    effect: _Effect


class ListItem(Named, forbid_unknown_fields=True, kw_only=True):
    """An item of a list."""

    score: _Score
    rank: Annotated[int, Meta(ge=1, description="The place in the list; 1 is the best.")]
    reasons: Annotated[
        Annotated[list[Reason], Meta(max_length=3)] | UnsetType,
        Meta(
            description="The events that raise the score most, the largest effect first. Absent: `reasons` was "
            "not true, or a baseline or the fallback gives the list.",
        ),
    ] = UNSET


class ListAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """A list of items, the best first."""

    request_id: RequestId
    user: Annotated[str | int | UnsetType, Meta(description="The user of the request. Absent if it has none.")] = (
        UNSET
    )
    model: ModelId
    source: Annotated[
        str,
        Meta(
            description="What ranked the items: `model` or `blend`; the name of a baseline, such as `markov`, if "
            "the server serves one; or the fallback (`popular`, `recent` or `groups`) if no item of the history "
            "is known."
        ),
    ]
    items: Annotated[
        list[ListItem],
        Meta(
            description="The items, the best first: at most `k`, fewer if the history, the lists and the rules "
            "leave fewer."
        ),
    ]
    known: Annotated[Count, Meta(description="How many events of the history the model knows. 0: see `source`.")]
    unknown: Annotated[
        list[str],
        Meta(
            max_length=10,
            description="Ids of the history that the model does not know and ignores, as text, at most ten. An "
            "item of the catalogue without an event in training is unknown too.",
        ),
    ]
    notes: Annotated[
        list[str],
        Meta(
            description="Sentences for people: why the fallback gives the list, or why it has fewer than `k` "
            "items. Usually empty."
        ),
    ]


class ListsAnswer(Struct, forbid_unknown_fields=True):
    """The answers to several requests."""

    answers: Annotated[list[ListAnswer], Meta(description="One for each of `requests`, in the same order.")]
    request_id: RequestId


class SimilarItem(Named, forbid_unknown_fields=True, kw_only=True):
    """An item, and how much it is like the item of the request."""

    score: Annotated[float, Meta(description="The cosine of both items' vectors, from -1 to 1; 1 is most alike.")]


class SimilarAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """The items most like an item."""

    request_id: RequestId
    model: ModelId
    items: Annotated[
        list[SimilarItem], Meta(description="The items, the most alike first, without the item itself.")
    ]


class EventEffect(Named, forbid_unknown_fields=True, kw_only=True):
    """An event of the history, and how much it raises the score of the item."""

    effect: _Effect
    interval_effect: Annotated[
        float | UnsetType,
        Meta(
            description="How much the time since the event before raises the score: the score minus that with "
            "both events at the same time. Absent for the first event, and for models without time."
        ),
    ] = UNSET


class ExplainAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """How much each event of a history speaks for an item."""

    request_id: RequestId
    model: ModelId
    item: Annotated[str | int, Meta(description="The item of the request.")]
    events: Annotated[
        list[EventEffect],
        Meta(description="The known events that the model reads, oldest first: at most its `maxlen` last ones."),
    ]


class EventsAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """What became of the events. They are durable."""

    request_id: RequestId
    stored: Annotated[Count, Meta(description="How many events were stored.")]
    repeated: Annotated[
        Count,
        Meta(description="How many had an `id` that was stored for the user before, and were not stored again."),
    ]
    unknown_items: Annotated[Count, Meta(description="How many have an item that no model knows.")]


class PastEvent(Named, forbid_unknown_fields=True, kw_only=True):
    """An event of a user."""

    source: Annotated[
        Literal["run", "events"],
        Meta(
            description="Where the event comes from: `run` is the data of the model, `events` is POST /v1/events."
        ),
    ] = field(name="from")
    time: Annotated[
        float | UnsetType,
        Meta(description="Seconds (not milliseconds) since 1970 UTC. Absent if the data of the run has no times."),
    ] = UNSET


class UserAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """The history of a user."""

    request_id: RequestId
    user: Annotated[str, Meta(description="The id of the user, as in the path.")]
    model: Annotated[str, Meta(description="The name of the model that gets this user.")]
    history: Annotated[
        list[PastEvent],
        Meta(
            max_length=1_000,
            description="The last 1,000 events of items that the model's catalogue has, oldest first.",
        ),
    ]
    total: Annotated[Count, Meta(description="How many such events there are.")]


class ForgetAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """The events of the user are deleted, and those of the run are not used from now on."""

    request_id: RequestId
    forgotten: Annotated[bool, Meta(description="Always true, also for an unknown user.")]


class CatalogueItem(Named, forbid_unknown_fields=True, kw_only=True):
    """An item of the catalogue."""

    events: Annotated[
        Count, Meta(description="How many events of the data have this item; 0 for exports without counts.")
    ]


class ItemsAnswer(Struct, forbid_unknown_fields=True, kw_only=True):
    """Items of the catalogue."""

    request_id: RequestId
    items: Annotated[
        list[CatalogueItem],
        Meta(
            description="The items that have all words of `query`, the most popular first; or those of the given "
            "ids, in the same order, without unknown ids."
        ),
    ]
    total: Annotated[Count, Meta(description="How many items were found, on all pages.")]
