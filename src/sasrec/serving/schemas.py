"""What clients send, checked strictly: a field that is not here, or out of bounds, is refused.

openapi.py describes these types to clients, with the descriptions of their fields.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

_Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Text = Annotated[str, Meta(max_length=10_000)]
Id = _Text | _Number
"""An id of the caller's own, as text or as an integer."""
_NotEmpty = Annotated[str, Meta(min_length=1, max_length=1_000, pattern=r"\S")] | _Number
_Ids = Annotated[list[Id], Meta(max_length=100_000)]
_K = Annotated[
    int,
    Meta(
        ge=1,
        le=1_000,
        description="The most items that the list may have. A list has fewer items if fewer are allowed.",
    ),
]
_Name = Annotated[str, Meta(max_length=100)]
_Seconds = Annotated[float, Meta(gt=-1e11, lt=1e11)]  # milliseconds are larger
_Values = Annotated[list[_Text | _Number | float], Meta(min_length=1, max_length=1_000)]


class Filter(Struct, forbid_unknown_fields=True):
    """A condition on a column of the catalogue. The list contains only items whose value in this column meets the
    condition. An item without a value in this column is never in the list.
    """

    column: Annotated[
        _Name,
        Meta(
            description="The name of a column: `item` (the id), or `title` or `group` if the catalogue has "
            "these. If the request names `rules` that have a table of items, it can also be a "
            "column of this table. GET /v1/models lists the columns of the catalogue."
        ),
    ]
    op: Annotated[
        Literal["=", "!=", "<", "<=", ">", ">=", "in"],
        Meta(
            description="How the value of the item must compare with `value`; `in` means that it equals "
            "one of several values."
        ),
    ]
    value: Annotated[
        _Text | _Number | float | _Values,
        Meta(
            description="What to compare with: a text or a number, of the type of the column. Only `in` "
            "takes a list."
        ),
    ]


class Of(Struct, forbid_unknown_fields=True, kw_only=True):
    """Whose history: that of a user, or the one given."""

    user: Annotated[
        Id | None,
        Meta(
            description="The id of a user. The history of this user is read: the events of the run, and "
            "the events of POST /v1/events. If the request has `history` too, that history is "
            "read instead. Then the user only decides which of several models answers, and in "
            "POST /v1/recommend which items the bans of rules exclude. null: no user, so the "
            "request needs `history`."
        ),
    ] = None
    history: Annotated[
        _Ids | None,
        Meta(
            description="A history as item ids, oldest first. It replaces the events of `user`. Unknown "
            "ids are ignored. If no id is known or the list is empty, POST /v1/recommend answers "
            "with the fallback, if there is one. null: the history of `user` is read."
        ),
    ] = None
    times: Annotated[
        Annotated[list[_Seconds], Meta(max_length=100_000)] | None,
        Meta(
            description="The times of `history`: one for each item, ascending, in seconds (not "
            "milliseconds). They may count from 1970 or from any other moment, because only "
            "the gaps between them matter. A model needs times if its `timed` is true in the "
            "answer of GET /v1/models, also for an empty history: send an empty list. Other "
            "models ignore them. Without `history`, times are ignored too. null: no times."
        ),
    ] = None
    model: Annotated[
        _Name | None,
        Meta(
            description="The name of a model, as GET /v1/models lists it. null: the server chooses. With "
            "several models, each gets a share of the users, and the same user always gets the "
            "same model. Without `user`, the history decides in this way."
        ),
    ] = None


class Recommend(Of, forbid_unknown_fields=True, kw_only=True):
    """A request for one list of items. It must contain `user` or `history`."""

    now: Annotated[
        _Seconds | Annotated[str, Meta(max_length=40)] | None,
        Meta(
            description="The moment at which the items of the list must be available. It matters only for "
            "rules that say when items are available, and have no time of their own. Send "
            "seconds (not milliseconds) since 1970, from 1990 on, or an ISO date or time such "
            "as 2030-12-31. null: the present moment."
        ),
    ] = None
    k: _K = 10
    allow: Annotated[
        _Ids | None,
        Meta(
            description="Only these items may be in the list. Unknown ids are ignored. null: all items may "
            "be in the list."
        ),
    ] = None
    deny: Annotated[_Ids, Meta(description="Items that must not be in the list. Unknown ids are ignored.")] = []
    exclude_seen: Annotated[
        bool | None,
        Meta(
            description="Whether the list omits the items of the history. null: as the model was trained. "
            "Such items are then omitted, unless `repeats` of the model is true in the answer "
            "of GET /v1/models."
        ),
    ] = None
    rules: Annotated[
        _Name | None,
        Meta(
            description="The name of rules that the server was started with, as GET /v1/models lists them. "
            "Rules limit which items the list may have. null: no rules."
        ),
    ] = None
    filters: Annotated[
        list[Filter],
        Meta(
            max_length=20,
            description="Conditions on the items of the list. Each item meets all conditions, in addition "
            "to `rules`.",
        ),
    ] = []
    per_group: Annotated[
        Annotated[int, Meta(ge=1, le=1_000)] | None,
        Meta(
            description="The most items of one group, such as a genre, that the list may have. The "
            "catalogue, or the table of items of `rules`, needs groups. null: no limit, unless "
            "`rules` has one."
        ),
    ] = None
    titles: Annotated[
        bool,
        Meta(
            description="Whether the answer has the title and the group of each item, if the catalogue has "
            "titles and groups."
        ),
    ] = False
    reasons: Annotated[
        bool,
        Meta(
            description="Whether each item of the answer names the events of the history that raise its "
            "score most, at most three. This takes longer, because the model reads the history "
            "again without each of its events. Baselines and the fallback, which answers if no "
            "item of the history is known, give no reasons."
        ),
    ] = False


class RecommendBody(Recommend, forbid_unknown_fields=True, kw_only=True):
    """A request for one list of items. It must contain `user` or `history`. To get several lists, put several such
    requests into the field `requests` instead.
    """

    requests: Annotated[
        Annotated[list[Recommend], Meta(min_length=1, max_length=256)] | None,
        Meta(
            description="Several requests, which the server answers together, in the same order. All other "
            "fields must then be absent or have their defaults. If one request is wrong, none "
            "is answered. null: the body is a single request."
        ),
    ] = None


class Similar(Struct, forbid_unknown_fields=True, kw_only=True):
    """A request for the items that are most similar to one item."""

    item: Annotated[Id, Meta(description="The id of an item that the model knows.")]
    k: _K = 10
    model: Annotated[
        _Name | None,
        Meta(
            description="The name of a model, as GET /v1/models lists it. null: the server chooses; with "
            "several models, always the same one."
        ),
    ] = None


class Explain(Of, forbid_unknown_fields=True, kw_only=True):
    """A request for the effect of each event of a history on the score of one item. It must contain `user` or
    `history`.
    """

    item: Annotated[Id, Meta(description="The id of an item that the model knows.")]


class NewEvent(Struct, forbid_unknown_fields=True, kw_only=True):
    """One interaction of a user with an item, such as a purchase."""

    user: Annotated[_NotEmpty, Meta(description="The id of the user, who may be new.")]
    item: Annotated[
        _NotEmpty,
        Meta(
            description="The id of the item. An event of an unknown item is stored too, but a model that "
            "does not know the item ignores the event."
        ),
    ]
    time: Annotated[
        _Seconds | None,
        Meta(
            description="When the event happened, in seconds (not milliseconds) since 1970 UTC, at most a "
            "day in the future. null: the moment at which the server receives the event."
        ),
    ] = None
    id: Annotated[
        Annotated[str, Meta(min_length=1, max_length=200)] | None,
        Meta(
            description="An id of the event, of your choice, such as the number of an order. A second "
            "event of the user with the same id is not stored. So you can send an event with "
            "an id again if no answer came. null: each event is stored."
        ),
    ] = None


class Events(Struct, forbid_unknown_fields=True):
    """A list of events to store. If one of the events is wrong, the server stores none of them."""

    events: Annotated[
        list[NewEvent],
        Meta(
            min_length=1,
            max_length=1_000,
            description="The events, in any order: their times decide their places in the histories.",
        ),
    ]


class Reload(Struct, forbid_unknown_fields=True):
    """A request to load a model again from its path. If the path is a symbolic link that now leads to another run,
    the server loads the other run.
    """

    model: Annotated[
        _Name | None,
        Meta(
            description="The name of a model, as GET /v1/models lists it. null: all models, one after the other."
        ),
    ] = None


_READ, _WRITE, _ADMIN = "read", "write", "admin"
ROUTES: dict[tuple[str, str], tuple[str, Any, str]] = {
    ("POST", "/v1/recommend"): (_READ, RecommendBody, "Get the best items for a user or a history."),
    ("POST", "/v1/similar"): (_READ, Similar, "Get the items that are most similar to one item."),
    ("POST", "/v1/explain"): (
        _READ,
        Explain,
        "Get the effect of each event of a history on the score of one item.",
    ),
    ("POST", "/v1/events"): (
        _WRITE,
        Events,
        "Store new events of users. The server answers only after the events are stored "
        "durably, so a later crash does not lose them.",
    ),
    ("GET", "/v1/users/{id}"): (_READ, None, "Get the history of a user."),
    ("DELETE", "/v1/users/{id}"): (
        _WRITE,
        None,
        "Forget a user: delete the user's stored events, and from now on ignore the user's "
        "events in the data of the run.",
    ),
    ("GET", "/v1/items"): (
        _READ,
        None,
        "Search items by words in their titles and ids, or look up items by their ids.",
    ),
    ("GET", "/v1/models"): (_READ, None, "List the models with their metrics, and the names of rules."),
    ("POST", "/admin/reload"): (
        _ADMIN,
        Reload,
        "Load a model again from its path. Until the new model has replaced the old model, the old "
        "model answers requests.",
    ),
    ("GET", "/healthz"): ("", None, "Check whether the process of the server answers."),
    ("GET", "/readyz"): ("", None, "Check whether every model answers a fixed test request (a canary)."),
    ("GET", "/metrics"): (
        _READ,
        None,
        "Get figures of the server, such as the number of requests, for the monitoring system Prometheus.",
    ),
    ("GET", "/openapi.json"): (
        _READ,
        None,
        "Get the description of these routes in OpenAPI 3.1, from which tools can generate clients.",
    ),
}
"""(method, path) -> the scope of a token that it needs, the type of its body, and what it does."""
