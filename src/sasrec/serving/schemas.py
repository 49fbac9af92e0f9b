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
_K = Annotated[int, Meta(ge=1, le=1_000, description="How many items the list has at most.")]
_Name = Annotated[str, Meta(max_length=100)]
_Seconds = Annotated[float, Meta(gt=-1e11, lt=1e11)]  # milliseconds are larger
_Values = Annotated[list[_Text | _Number | float], Meta(min_length=1, max_length=1_000)]


class Filter(Struct, forbid_unknown_fields=True):
    """A condition on a column: only items that meet it are in the list. An item without a value never meets it."""

    column: Annotated[
        _Name,
        Meta(
            description="A column of the catalogue: `item` (the id), and `title` and `group` if the catalogue has "
            "them. If `rules` names rules with a table of items, the columns of that table too."
        ),
    ]
    op: Annotated[
        Literal["=", "!=", "<", "<=", ">", ">=", "in"],
        Meta(description="How the column compares with `value`; `in` means that it equals one of several values."),
    ]
    value: Annotated[
        _Text | _Number | float | _Values,
        Meta(description="A text or a number, of the type of the column. Only `in` takes a list."),
    ]


class Of(Struct, forbid_unknown_fields=True, kw_only=True):
    """Whose history: that of a user, or the one given."""

    user: Annotated[
        Id | None,
        Meta(
            description="The id of a user, whose history is read: the events of the run, and those that were "
            "sent. If `history` is given too, the history wins; the user then only decides which of several "
            "models answers, and which items the bans of rules exclude. null: no user; `history` is needed."
        ),
    ] = None
    history: Annotated[
        _Ids | None,
        Meta(
            description="Item ids, oldest first. Nothing else is read: not the events of `user`. Unknown ids are "
            "ignored. null: the history of `user` is read."
        ),
    ] = None
    times: Annotated[
        Annotated[list[_Seconds], Meta(max_length=100_000)] | None,
        Meta(
            description="The times of `history`: one for each item, ascending, in seconds (not milliseconds) "
            "since 1970, or since any other moment, because only the gaps count. Models whose `timed` is true in "
            "the answer of GET /v1/models need them; other models ignore them, and so does a request without "
            "`history`. null: no times."
        ),
    ] = None
    model: Annotated[
        _Name | None,
        Meta(
            description="The name of a model of GET /v1/models. null: the only model, or the one of several that "
            "gets this user, or without a user this history; always the same one."
        ),
    ] = None


class Recommend(Of, forbid_unknown_fields=True, kw_only=True):
    """A request for a list of items, for a user or for a history. One of both is needed."""

    now: Annotated[
        _Seconds | Annotated[str, Meta(max_length=40)] | None,
        Meta(
            description="The moment at which the items must be available, for rules that say when items are: "
            "seconds (not milliseconds) since 1970, from 1990 on, or an ISO date or time such as 2030-12-31. "
            "null: the time of the rules if they have one, else the present moment."
        ),
    ] = None
    k: _K = 10
    allow: Annotated[
        _Ids | None,
        Meta(description="Only these items may be in the list. Unknown ids are ignored. null: all items may."),
    ] = None
    deny: Annotated[_Ids, Meta(description="Items that must not be in the list. Unknown ids are ignored.")] = []
    exclude_seen: Annotated[
        bool | None,
        Meta(
            description="Whether items of the history are excluded. null: as the model was trained; they are "
            "excluded unless `repeats` is true in the answer of GET /v1/models."
        ),
    ] = None
    rules: Annotated[
        _Name | None,
        Meta(description="The name of rules of the server, as GET /v1/models lists them. null: no such rules."),
    ] = None
    filters: Annotated[
        list[Filter],
        Meta(
            max_length=20, description="Conditions that all items of the list meet, all of them, beside `rules`."
        ),
    ] = []
    per_group: Annotated[
        Annotated[int, Meta(ge=1, le=1_000)] | None,
        Meta(
            description="How many items of one group the list has at most. The catalogue needs groups. null: no "
            "limit, unless `rules` has one."
        ),
    ] = None
    titles: Annotated[
        bool, Meta(description="Whether each item has its title and group, if the catalogue has them.")
    ] = False
    reasons: Annotated[
        bool,
        Meta(
            description="Whether each item names the events of the history that speak most for it, at most three. "
            "This takes longer, because the model reads the history again without each of its events. Baselines "
            "and the fallback give no reasons."
        ),
    ] = False


class RecommendBody(Recommend, forbid_unknown_fields=True, kw_only=True):
    """A request for a list of items, for a user or for a history; or several requests in `requests`."""

    requests: Annotated[
        Annotated[list[Recommend], Meta(min_length=1, max_length=256)] | None,
        Meta(
            description="Several requests, which are answered together, in the same order. The other fields must "
            "then be absent or have their defaults. If one request is wrong, none is answered. null: this is one "
            "request."
        ),
    ] = None


class Similar(Struct, forbid_unknown_fields=True, kw_only=True):
    """A request for the items most like an item."""

    item: Annotated[Id, Meta(description="The id of an item of the catalogue.")]
    k: _K = 10
    model: Annotated[
        _Name | None,
        Meta(
            description="The name of a model of GET /v1/models. null: the only model; if there are several, "
            "always the same one."
        ),
    ] = None


class Explain(Of, forbid_unknown_fields=True, kw_only=True):
    """A request for the reasons of an item: how much each event of a history raises its score."""

    item: Annotated[Id, Meta(description="The id of an item of the catalogue.")]


class NewEvent(Struct, forbid_unknown_fields=True, kw_only=True):
    """An interaction of a user with an item."""

    user: Annotated[_NotEmpty, Meta(description="The id of the user, who may be new.")]
    item: Annotated[
        _NotEmpty,
        Meta(
            description="The id of the item. An unknown item is stored too, but a model that lacks it ignores it."
        ),
    ]
    time: Annotated[
        _Seconds | None,
        Meta(
            description="When it happened, in seconds (not milliseconds) since 1970 UTC, at most a day ahead. "
            "null: the moment at which the server receives it."
        ),
    ] = None
    id: Annotated[
        Annotated[str, Meta(min_length=1, max_length=200)] | None,
        Meta(
            description="An id of the event, of your choice. A second event of the user with the same id is not "
            "stored, so an event with an id can be sent again. null: each event is stored."
        ),
    ] = None


class Events(Struct, forbid_unknown_fields=True):
    """Events to store, all or none."""

    events: Annotated[
        list[NewEvent],
        Meta(min_length=1, max_length=1_000, description="The events, in any order: their times decide."),
    ]


class Reload(Struct, forbid_unknown_fields=True):
    """Which model to load again from its path."""

    model: Annotated[
        _Name | None, Meta(description="The name of a model of GET /v1/models. null: all, one after the other.")
    ] = None


_READ, _WRITE, _ADMIN = "read", "write", "admin"
ROUTES: dict[tuple[str, str], tuple[str, Any, str]] = {
    ("POST", "/v1/recommend"): (_READ, RecommendBody, "The best items for a user or a history."),
    ("POST", "/v1/similar"): (_READ, Similar, "The items most like an item."),
    ("POST", "/v1/explain"): (_READ, Explain, "Which events of a history speak for an item."),
    ("POST", "/v1/events"): (_WRITE, Events, "Store events; the answer comes after they are durable."),
    ("GET", "/v1/users/{id}"): (_READ, None, "The history of a user."),
    ("DELETE", "/v1/users/{id}"): (_WRITE, None, "Forget a user."),
    ("GET", "/v1/items"): (_READ, None, "Search items by words of their titles and ids, or look up ids."),
    ("GET", "/v1/models"): (_READ, None, "The models, how they were measured, and the names of rules."),
    ("POST", "/admin/reload"): (_ADMIN, Reload, "Load a model again from its path."),
    ("GET", "/healthz"): ("", None, "Whether the process answers."),
    ("GET", "/readyz"): ("", None, "Whether every model answers its canary."),
    ("GET", "/metrics"): (_READ, None, "Figures for Prometheus."),
    ("GET", "/openapi.json"): (_READ, None, "The description of these routes, OpenAPI 3.1."),
}
"""(method, path) -> the scope of a token that it needs, the type of its body, and what it does."""
