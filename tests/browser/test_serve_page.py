"""The page of the server in a browser: what it shows, by mouse and by keys, on a desk and a phone, in two languages."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.data.splits import split_events
from sasrec.evaluation.card import card
from tests.serving.process import Served, serving
from tests.synthetic import chain_frame, small

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
HOSTILE = "<img src=x onerror=alert(1)>"
HISTORY = "#history=item-01,item-02,item-03"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of the order, and one of the order and the gaps, of items with titles."""
    folder = tmp_path_factory.mktemp("served")
    titles = [HOSTILE if number == 5 else f"Café number {number}" for number in range(25)]
    pl.DataFrame(
        {
            "item": [f"item-{number:02d}" for number in range(25)],
            "title": titles,
            "group": ["tea", "milk"] * 12 + ["tea"],
        }
    ).write_csv(folder / "items.csv")
    data = sasrec.prepare(chain_frame(), items=folder / "items.csv", items_group="group")
    for name, timed in (("plain", False), ("timed", True)):
        sasrec.train(data, folder / name, **small(num_epochs=3, time=timed))
    return {name: folder / name for name in ("plain", "timed")}


@pytest.fixture(scope="module")
def served(runs: dict[str, Path]) -> Iterator[Served]:
    with serving(*(f"{name}={run}" for name, run in runs.items()), "--fallback", "none", "--wait", "10") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        # CI is root, for whom Chromium's sandbox does not start.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Shown:
    """The page in a window of its own."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def history(self) -> list[str]:
        return [code.strip() for code in self.page.locator("#history code").all_inner_texts()]

    def lists(self) -> dict[str, list[tuple[str, str]]]:
        """Model -> (item, score as shown), best first."""
        found: dict[str, list[tuple[str, str]]] = {}
        for column in self.page.locator(".column").all():
            rows = column.locator("[data-item]").all()
            found[column.locator("h3").inner_text()] = [
                (row.get_attribute("data-item"), row.locator(".score").inner_text().split()[-1]) for row in rows
            ]
        return found

    def settled(self, models: int = 2) -> dict[str, list[tuple[str, str]]]:
        """Return the lists when they have come, and no other ones are under way."""
        self.page.wait_for_timeout(250)  # a change waits so long for the next one
        self.page.wait_for_selector("#lists[aria-busy=false]")
        assert self.page.locator(".column").count() == models
        return self.lists()

    def bars(self, column: int = 0) -> list[float]:
        """Return the length of each bar of a list, in percent of its track."""
        fills = self.page.locator(".column").nth(column).locator(".item .bar-fill").all()
        return [float(fill.evaluate("bar => parseFloat(bar.style.width)")) for fill in fills]

    def fits(self) -> bool:
        return bool(
            self.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        )


Open = Callable[..., Shown]


@pytest.fixture
def opened(browser: Any, served: Served) -> Iterator[Open]:
    """Opens the page; at the end, there was no error, and no request to anywhere else.

    `models`: changes for models of /v1/models, by name.
    """
    contexts, wrong = [], []
    quiet = {"allowed": ""}

    def open_page(
        address: str = "",
        *,
        port: int = served.port,
        allowed: str = "",
        models: dict[str, dict[str, Any]] | None = None,
        **options: Any,
    ) -> Shown:
        def changed(route: Any) -> None:
            answer = route.fetch()
            facts = answer.json()
            facts["models"] = [each | (models or {}).get(each["name"], {}) for each in facts["models"]]
            route.fulfill(response=answer, json=facts)

        context = browser.new_context(**{"viewport": DESK, "locale": "en-GB"} | options)
        contexts.append(context)
        quiet["allowed"] = allowed
        own = f"http://127.0.0.1:{port}/"
        page = context.new_page()
        page.on("console", lambda said: wrong.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: request.url.startswith(own) or wrong.append(request.url))
        if models:
            page.route("**/v1/models", changed)
        page.goto(own + address)
        page.wait_for_selector("#serving code" if not allowed else "header", state="attached")
        return Shown(page)

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in wrong if not (quiet["allowed"] and quiet["allowed"] in text)] == []


def test_a_history_is_built_ordered_and_shortened_by_keyboard_alone(opened: Open) -> None:
    shown = opened()
    keys = shown.page.keyboard
    for _ in range(12):
        keys.press("Tab")
        if shown.page.evaluate("document.activeElement.id") == "add-item":
            break
    # Accents do not matter, and ids are found, too.
    for count, typed in enumerate(("cafe number 2", "number 3", "item-04"), 1):
        keys.type(typed)
        shown.page.wait_for_selector("#add-item-list [aria-selected=true]")
        keys.press("ArrowDown")
        keys.press("ArrowUp")
        keys.press("Enter")
        shown.page.locator("#history code").nth(count - 1).wait_for()
    found = shown.history()
    assert len(found) == 3
    assert found[2] == "item-04"
    before = shown.settled()
    assert all(len(rows) == 10 for rows in before.values())
    for _ in range(12):
        keys.press("Tab")
        if shown.page.evaluate("document.activeElement.className") == "grip":
            break
    keys.press("ArrowDown")
    keys.press("Alt+ArrowUp")
    assert shown.history() == [found[1], found[0], found[2]]
    assert "place 1 of 3" in shown.page.locator("#live").inner_text()
    assert shown.settled() != before
    keys.press("Delete")
    assert shown.history() == [found[0], found[2]]
    assert shown.page.evaluate("document.activeElement.className") == "grip"


def test_enter_takes_what_was_typed_and_not_what_an_earlier_text_found(opened: Open) -> None:
    shown = opened()
    field = shown.page.locator("#add-item")
    field.fill("item")
    shown.page.wait_for_selector("#add-item-list [aria-selected=true]")
    field.press_sequentially("-04")
    field.press("Enter")  # before the list follows
    shown.page.wait_for_selector("#history code")
    assert shown.history() == ["item-04"]


def test_order_and_gaps_change_the_lists(opened: Open) -> None:
    shown = opened(HISTORY)
    first = shown.settled()
    shown.page.get_by_role("button", name="Move Café number 1 later").click()
    assert shown.history() == ["item-02", "item-01", "item-03"]
    moved = shown.settled()
    assert moved["plain"] != first["plain"]
    gap = shown.page.locator("input.gap").nth(1)
    gap.fill("30 d")
    gap.press("Enter")
    spread = shown.settled()
    assert spread["plain"] == moved["plain"]  # it reads only the order
    assert spread["timed"] != moved["timed"]
    assert "gaps=86400,2592000" in shown.page.url
    gap.fill("soon")
    gap.press("Enter")
    assert gap.get_attribute("aria-invalid") == "true"
    assert "30 s" in shown.page.locator("#toast").inner_text()


def test_a_row_is_dragged_to_another_place(opened: Open) -> None:
    shown = opened(HISTORY)
    shown.settled()
    grips = [each.bounding_box() for each in shown.page.locator(".grip").all()]
    shown.page.mouse.move(grips[2]["x"] + 10, grips[2]["y"] + 10)
    shown.page.mouse.down()
    shown.page.mouse.move(grips[1]["x"] + 10, grips[1]["y"] + 2, steps=6)
    shown.page.mouse.move(grips[0]["x"] + 10, grips[0]["y"] + 2, steps=6)
    shown.page.mouse.up()
    assert shown.history() == ["item-03", "item-01", "item-02"]


def test_a_banned_item_leaves_the_lists_and_comes_back(opened: Open) -> None:
    shown = opened(HISTORY)
    before = shown.settled()
    first = before["plain"][0][0]
    shown.page.locator(f"[data-item={first}]").first.get_by_role("button", name="Ban").click()
    after = shown.settled()
    assert first not in [item for rows in after.values() for item, _ in rows]
    assert f"deny={first}" in shown.page.url
    shown.page.locator("#toast button").click()
    assert shown.settled() == before
    shown.page.get_by_role("button", name="Ban").nth(1).focus()
    shown.page.keyboard.press("Enter")
    shown.settled()
    assert shown.page.evaluate("document.activeElement.textContent") == "Ban"  # of the item that is there now


def test_conditions_narrow_the_lists(opened: Open) -> None:
    shown = opened(f"{HISTORY}&allow=item-10,item-11,item-12&deny=item-11&k=5")
    assert {frozenset(item for item, _ in rows) for rows in shown.settled().values()} == {
        frozenset({"item-10", "item-12"})
    }
    assert "Only 2 of 5" in shown.page.locator(".column .note").first.inner_text()
    shown.page.locator("#reset").click()
    shown.page.get_by_label("At most per group").fill("2")
    shown.page.get_by_label("At most per group").press("Enter")
    assert all(len(rows) == 4 for rows in shown.settled().values())


def test_two_lists_are_marked_where_they_differ(opened: Open) -> None:
    shown = opened(HISTORY)
    lists = shown.settled()
    items = {name: [item for item, _ in rows] for name, rows in lists.items()}
    for name, other in (("plain", "timed"), ("timed", "plain")):
        column = shown.page.locator(f".column[data-model={name}]")
        only = [each.get_attribute("data-item") for each in column.locator("[data-item]:has(.mark.only)").all()]
        assert only == [item for item in items[name] if item not in items[other]]
        higher = [each.get_attribute("data-item") for each in column.locator("[data-item]:has(.mark.up)").all()]
        assert higher == [
            item for at, item in enumerate(items[name]) if item in items[other] and items[other].index(item) > at
        ]
    shown.page.locator("#model-two").select_option("")
    assert list(shown.settled(1)) == ["plain"]
    assert shown.page.locator(".mark").count() == 0
    shown.page.get_by_role("button", name="Keep for comparison").click()
    shown.page.get_by_role("button", name="Move Café number 3 earlier").click()
    kept = shown.settled()
    assert kept["Kept list"] == lists["plain"]
    assert kept["plain"] != lists["plain"]


def test_reasons_and_similar_items_open_on_demand(opened: Open) -> None:
    shown = opened(HISTORY)
    shown.settled()
    why = shown.page.locator("[data-item]").first.get_by_role("button", name="Why")
    why.click()
    shown.page.wait_for_selector(".effects li")
    assert "What each event adds to the score" in shown.page.locator(".why:not([hidden])").inner_text()
    assert shown.page.locator(".effects li").count() == 3
    assert why.get_attribute("aria-expanded") == "true"
    shown.page.locator("[data-item]").first.get_by_role("button", name="similar").click()
    shown.page.wait_for_selector("dialog[open] .item")
    assert shown.page.locator("dialog .item").count() == 10
    shown.page.locator("dialog").get_by_role("button", name="Add").first.click()
    assert len(shown.history()) == 4
    shown.page.keyboard.press("Escape")
    assert not shown.page.locator("dialog").is_visible()
    shown.page.locator("summary").click()
    shown.page.get_by_label("Reasons in the list").check()
    shown.settled()
    assert shown.page.locator(".because").count() > 0


def test_a_user_is_loaded_and_the_history_can_be_changed(opened: Open) -> None:
    shown = opened(allowed="404")
    shown.page.get_by_label("Load a user").fill("u003")
    shown.page.keyboard.press("Enter")
    shown.page.wait_for_selector("#history .event")
    own = shown.settled()
    assert shown.page.url.endswith("#user=u003")
    again = opened("#user=u003", allowed="404")
    assert again.settled() == own
    count = len(shown.history())
    shown.page.get_by_role("button", name=re.compile("^Remove")).last.click()
    assert len(shown.history()) == count - 1
    assert "history=" in shown.page.url
    shown.page.get_by_label("Load a user").fill("nobody")
    shown.page.keyboard.press("Enter")
    shown.page.wait_for_selector("#user-message:has-text('nobody')")


def test_the_address_holds_the_view(opened: Open) -> None:
    one = opened(HISTORY)
    one.page.get_by_role("button", name="Move Café number 3 earlier").click()
    one.page.locator("summary").click()
    one.page.get_by_label("Items in the list").fill("7")
    one.page.get_by_label("Items in the list").press("Enter")
    lists = one.settled()
    assert len(lists["plain"]) == 7
    other = opened(one.page.url.partition("/#")[2].join(("#", "")))
    assert other.settled() == lists
    assert other.history() == ["item-01", "item-03", "item-02"]
    assert "Café number 3" in other.page.locator("#history").inner_text()
    other.page.get_by_role("link", name="Models").click()
    assert "view=models" in other.page.url
    assert "history=item-01" in other.page.url


def test_the_command_asks_for_the_same_list(opened: Open, served: Served) -> None:
    shown = opened(HISTORY, permissions=["clipboard-read", "clipboard-write"])
    lists = shown.settled()
    shown.page.get_by_role("button", name="Copy as curl").click()
    shown.page.wait_for_selector("#toast:not([hidden])")
    command = shown.page.evaluate("navigator.clipboard.readText()")
    assert command.startswith(f"curl -sS 'http://127.0.0.1:{served.port}/v1/recommend'")
    status, answer, _ = served.ask("/v1/recommend", json.loads(command.partition("-d '")[2].rstrip("'")))
    assert status == 200
    assert [each["item"] for each in answer["items"]] == [item for item, _ in lists["plain"]]


def test_models_show_their_metrics_beside_baselines(opened: Open) -> None:
    shown = opened("#view=models")
    shown.page.wait_for_selector(".model tbody tr")
    text = shown.page.locator(".model").first.inner_text()
    assert all(name in text for name in ("NDCG@10", "popularity", "item-to-item", "the last 12 events"))
    assert shown.page.locator(".model .own").count() == 2


def test_the_catalogue_is_searched(opened: Open) -> None:
    shown = opened("#view=catalogue")
    shown.page.wait_for_selector("#catalogue-rows tr")
    assert shown.page.locator("#catalogue-rows tr").count() == 25
    shown.page.get_by_label("Search the catalogue").fill("number 24")
    shown.page.wait_for_selector("#catalogue-count:has-text('1 of 1')")
    assert shown.page.locator("#catalogue-rows tr").count() == 1


@pytest.mark.parametrize("view", ["catalogue", "models"])
def test_a_phone_shows_tables_without_their_own_scrolling(opened: Open, view: str) -> None:
    shown = opened(f"#view={view}", viewport=PHONE, has_touch=True)
    shown.page.wait_for_selector("tbody tr")
    tables = shown.page.locator(".scroll").all()
    assert all(table.evaluate("each => each.scrollWidth <= each.clientWidth") for table in tables)
    if view == "catalogue":
        row = shown.page.locator("tbody tr").first
        assert row.locator("code").bounding_box()["height"] < 20  # the id is one line
        assert all(row.get_by_text(text, exact=True).is_visible() for text in ("Similar", "Add"))
        assert "events" in row.inner_text()
    else:
        bars = [bar.bounding_box() for bar in shown.page.locator(".quality .bar").all()]
        assert all(bar["width"] > 200 and bar["x"] + bar["width"] < PHONE["width"] for bar in bars)


def test_the_id_of_an_item_is_one_line_on_a_desk(opened: Open) -> None:
    shown = opened("#view=catalogue", viewport={"width": 700, "height": 900})
    shown.page.wait_for_selector("tbody tr")
    assert shown.page.locator("tbody code").first.bounding_box()["height"] < 20


def test_a_phone_jumps_to_the_other_list(opened: Open) -> None:
    shown = opened(HISTORY, viewport=PHONE, has_touch=True)
    shown.settled()
    other = shown.page.locator(".column[data-model=timed]")
    assert other.bounding_box()["y"] > PHONE["height"]
    shown.page.get_by_role("button", name="Go to the list of timed").click()
    shown.page.wait_for_timeout(100)
    assert other.bounding_box()["y"] < 100
    shown.page.get_by_role("button", name="Go to the list of plain").click()
    shown.page.set_viewport_size(DESK)
    assert shown.page.locator(".jump").first.is_hidden()  # the lists are side by side


def test_bars_of_a_model_span_its_scores_and_bars_of_counts_start_at_zero(
    opened: Open, runs: dict[str, Path], tmp_path: Path
) -> None:
    names = [f"{name}={run}" for name, run in runs.items()]
    with serving(*names, "--events", tmp_path / "events", "--wait", "10") as server:
        shown = opened(port=server.port)
        counts = [float(score) for _, score in shown.settled(1)["plain"]]
        assert shown.bars() == pytest.approx([100 * count / counts[0] for count in counts], abs=0.06)
        assert "bars: from 0" in shown.page.locator(".column > .meta").inner_text()
        assert shown.page.locator("#model-one").is_visible()
        assert shown.page.get_by_label("Compare with").is_hidden()  # one list is shown
        shown.page.get_by_role("button", name="Try an example").click()
        shown.settled()
        assert shown.page.get_by_label("Compare with").is_visible()
        bars = shown.bars()
        assert bars[0] == 100
        assert 0 < bars[-1] < 10
        assert "from the lowest to the highest score" in shown.page.locator(".column > .meta").first.inner_text()


def test_the_page_says_which_model_reads_which_events(opened: Open) -> None:
    address = "#history=" + ",".join(f"item-{number:02d}" for number in range(6))
    shown = opened(address, models={"timed": {"maxlen": 3}})
    shown.settled()
    note = shown.page.locator("#history-note")
    assert "timed reads the last 3 events; it does not read the grey ones" in note.inner_text()
    assert shown.page.locator(".event.unread").count() == 3
    facts = shown.page.locator(".column > .meta").all_inner_texts()
    assert "from 6 events" in facts[0]
    assert "from the last 3 of 6 events" in facts[1]
    shown.page.locator("#model-one").select_option("plain")
    shown.page.locator("#model-two").select_option("")
    assert "grey" not in note.inner_text()
    both = opened(address, models={"timed": {"maxlen": 3}, "plain": {"maxlen": 4}})
    both.settled()
    assert "timed reads the last 3 events, and plain the last 4" in both.page.locator("#history-note").inner_text()


def test_an_unknown_item_of_the_history_is_marked(opened: Open) -> None:
    shown = opened("#history=item-01,never-seen,item-03")
    shown.settled()
    marks = [mark.inner_text() for mark in shown.page.locator(".event .unknown-item").all()]
    assert marks == ["", "unknown, ignored", ""]
    shown.page.get_by_role("button", name="Move never-seen later").click()
    shown.settled()
    assert shown.page.locator(".event.unknown").get_attribute("data-at") == "2"


NO_COLUMNS: dict[str, dict[str, Any]] = {name: {"columns": {}} for name in ("plain", "timed")}
PRICE = {name: {"columns": {"title": "text", "group": "text", "price": "number"}} for name in ("plain", "timed")}


def test_filters_narrow_the_lists_and_stand_in_the_address(opened: Open) -> None:
    shown = opened(HISTORY)
    before = shown.settled()
    shown.page.locator("summary").click()
    shown.page.get_by_label("Column").select_option("group")
    shown.page.get_by_label("Value").fill("tea")
    shown.page.get_by_label("Value").press("Enter")
    tea = shown.settled()
    assert tea != before
    assert {int(item[-2:]) % 2 for rows in tea.values() for item, _ in rows} == {0}
    shown.page.get_by_label("Column").select_option("title")
    shown.page.get_by_label("Comparison").select_option("in")
    shown.page.get_by_label("Value").fill("Café number 10, Café number 11")
    shown.page.get_by_role("button", name="Add filter").click()
    assert {item for rows in shown.settled().values() for item, _ in rows} == {"item-10"}
    again = opened(shown.page.url.partition("/#")[2].join(("#", "")), models=NO_COLUMNS)
    assert again.settled() == shown.lists()
    assert not again.page.get_by_label("Column").is_visible()
    for text in ("title", "group"):
        again.page.get_by_role("button", name=f"Remove the filter {text}").click()
    assert again.settled() == before
    assert not again.page.locator("#filters").is_visible()


def test_a_filter_on_a_column_of_numbers_takes_a_number(opened: Open) -> None:
    shown = opened(HISTORY, models=PRICE, allowed="422")
    shown.settled()
    shown.page.locator("summary").click()
    shown.page.get_by_label("Column").select_option("price")
    shown.page.get_by_label("Comparison").select_option(">=")
    for text in ("cheap", ""):
        shown.page.get_by_label("Value").fill(text)
        shown.page.get_by_role("button", name="Add filter").click()
        assert shown.page.get_by_label("Value").get_attribute("aria-invalid") == "true"
        assert "Write a number" in shown.page.locator("#toast").inner_text()
    assert "filters" not in shown.page.url
    shown.page.get_by_label("Value").fill("2.5")
    shown.page.get_by_label("Value").press("Enter")
    assert json.loads(unquote(shown.page.url.partition("filters=")[2])) == [
        {"column": "price", "op": ">=", "value": 2.5}
    ]
    shown.settled()  # this catalogue has no prices, so the server refuses
    assert "is not a column here" in shown.page.locator(".column .note").first.inner_text()


def test_an_address_with_broken_filters_is_read_without_them(opened: Open) -> None:
    shown = opened(f"{HISTORY}&filters=%5B%7B%22column%22%3A1%7D%5D&k=3")
    assert all(len(rows) == 3 for rows in shown.settled().values())


def protocols() -> list[str]:
    """Return what cards say of splits, candidates and seen items: of every kind of split, and with baskets."""
    data = sasrec.prepare(chain_frame())
    last, temporal = split_events(data, "last-2"), split_events(data, "temporal:0.8,0.9", repeats=True)
    splits = [split_events(data), last, temporal]
    splits += [
        replace(temporal, how="files", boundaries=None),
        replace(last, other_file={"name": "new.csv", "data_hash": "0" * 64}),
        replace(last, basket_starts=np.zeros(1, np.int64)),
    ]
    return [
        str(text)
        for cards in (card(data, each) for each in splits)
        for text in map(cards.get, ("split", "full", "seen"))
    ]


def test_chinese_has_words_for_every_protocol_and_keeps_unknown_ones(opened: Open) -> None:
    shown = opened("#view=models", locale="zh-CN", models={"timed": {"protocol": {"split": "by moonlight"}}})
    shown.page.wait_for_selector(".model tbody tr")
    words = shown.page.evaluate(
        "async texts => { const { stored } = await import('/page/texts.js'); return texts.map(stored); }",
        protocols(),
    )
    assert [text for text in words if not text or "items" in text or "event" in text] == []
    first, second = (each.inner_text() for each in shown.page.locator(".facts.wide").all())
    assert "留一法" in first
    assert "by moonlight" in second
    assert shown.page.locator(".facts.wide [lang=en]").all_inner_texts() == ["by moonlight"]


def test_a_title_is_never_markup(opened: Open) -> None:
    shown = opened("#history=item-04,item-05")
    shown.settled()
    assert HOSTILE in shown.page.locator("#history").inner_text()
    assert shown.page.locator("main img").count() == 0


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
@pytest.mark.parametrize("view", ["recommend", "catalogue", "models"])
def test_a_phone_never_scrolls_sideways(opened: Open, view: str, language: str) -> None:
    shown = opened(
        f"{HISTORY}&deny=item-07&reasons=1&view={view}", viewport=PHONE, locale=language, has_touch=True
    )
    shown.page.wait_for_selector({"recommend": ".item", "catalogue": "tbody tr", "models": "tbody tr"}[view])
    assert shown.fits()


def test_chinese_is_the_language_of_a_chinese_browser_and_the_choice_is_remembered(opened: Open) -> None:
    shown = opened(HISTORY, locale="zh-CN")
    shown.settled()
    assert shown.page.evaluate("document.documentElement.lang") == "zh-CN"
    assert shown.page.locator("h2").first.inner_text() == "用户历史"
    shown.page.get_by_role("button", name="English").click()
    shown.page.reload()
    shown.settled()
    assert shown.page.locator("h2").first.inner_text() == "History"


def test_both_languages_have_all_texts(opened: Open) -> None:
    tables = opened().page.evaluate(
        """async () => Object.values((await import("/page/texts.js")).TABLES)
             .map(table => Object.entries(table).map(([name, text]) => [name, typeof text, text.length ?? 0]))"""
    )
    english, chinese = (
        {name: (kind, kind == "function" and length) for name, kind, length in table} for table in tables
    )
    assert english == chinese


def contrast(page: Any, selector: str) -> float:
    return float(
        page.evaluate(
            """selector => {
              const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(v => v / 255)
                .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
              const element = document.querySelector(selector);
              let behind = element;
              while (/, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
              const both = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)].sort();
              return (both[1] + .05) / (both[0] + .05); }""",
            selector,
        )
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out_in_light_and_dark(opened: Open, scheme: str) -> None:
    shown = opened(HISTORY, color_scheme=scheme)
    shown.settled()
    ground = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", ground)[0]) < 64) == (scheme == "dark")
    for selector in (".item .title", ".item .meta code", ".item-actions button", ".hint", "nav a", ".chip, .mark"):
        assert contrast(shown.page, selector) >= 4.5, selector


def test_every_control_has_a_name(opened: Open) -> None:
    shown = opened(f"{HISTORY}&deny=item-07")
    shown.settled()
    bare = shown.page.evaluate(
        """[...document.querySelectorAll("button, input, select, a, [role=listbox]")]
             .filter(each => !(each.getAttribute("aria-label") || each.textContent.trim() || each.labels?.length))
             .map(each => each.outerHTML)"""
    )
    assert bare == []
    ids = shown.page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))


def test_the_page_says_when_the_server_does_not_answer_and_recovers_by_itself(opened: Open) -> None:
    shown = opened(HISTORY, allowed="ERR_INTERNET_DISCONNECTED")
    before = shown.settled()
    shown.page.context.set_offline(True)
    shown.page.get_by_role("button", name="Move Café number 3 earlier").click()
    shown.page.wait_for_selector("#trouble p")
    assert "does not answer" in shown.page.locator("#trouble").inner_text()
    assert shown.lists() == before  # the old lists stay
    shown.page.context.set_offline(False)
    shown.page.wait_for_selector("#trouble p", state="detached", timeout=10_000)
    assert shown.lists() != before


def test_a_token_is_asked_for_and_stays_out_of_the_command(
    opened: Open, runs: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text("read 0123456789abcdef0123\n")
    with serving(runs["plain"], "--tokens", tmp_path / "tokens", "--events", tmp_path / "events") as server:
        shown = opened(HISTORY, port=server.port, allowed="401", permissions=["clipboard-read", "clipboard-write"])
        shown.page.wait_for_selector("#token")
        shown.page.locator("#token").fill("wrong")
        shown.page.keyboard.press("Enter")
        shown.page.wait_for_selector("#trouble:has-text('does not accept')")
        assert "the second word of a line" in shown.page.locator("#token-hint").inner_text()
        shown.page.locator("#token").fill(" read 0123456789abcdef0123  # the whole line")
        shown.page.keyboard.press("Enter")
        shown.page.wait_for_selector(".item")
        shown.page.get_by_role("button", name="Copy as curl").click()
        shown.page.wait_for_selector("#toast:not([hidden])")
        command = shown.page.evaluate("navigator.clipboard.readText()")
        assert "$SASREC_TOKEN" in command
        assert "0123456789abcdef0123" not in command + shown.page.url


def test_rules_and_the_fallback_show_in_the_list(opened: Open, runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text('allow = ["item-07", "item-08"]\n')
    options = ("--rules", f"shop={tmp_path / 'shop.toml'}", "--events", tmp_path / "events")
    with serving(runs["plain"], *options) as server:
        shown = opened("#history=item-01&rules=shop", port=server.port)
        rows = next(iter(shown.settled(1).values()))
        assert {item for item, _ in rows} == {"item-07", "item-08"}
        shown.page.get_by_label("Rules").select_option("")
        assert len(next(iter(shown.settled(1).values()))) == 10
        cold = opened("#history=nothing", port=server.port)
        assert len(next(iter(cold.settled(1).values()))) == 10
        notes = " ".join(cold.page.locator(".column .note").all_inner_texts())
        assert "the fallback: popular" in notes
        assert "nothing" in notes
        assert cold.page.locator(".event .unknown-item").inner_text() == "unknown, ignored"
        assert cold.page.get_by_role("button", name="Why").count() == 0


def test_a_busy_server_is_asked_again_when_it_says_so(opened: Open) -> None:
    shown = opened(HISTORY, allowed="429")
    before = shown.settled()
    refusal = {"error": {"code": "overloaded", "message": "Later."}, "request_id": "r1"}
    shown.page.route(
        "**/v1/recommend", lambda route: route.fulfill(status=429, headers={"Retry-After": "1"}, json=refusal)
    )
    shown.page.get_by_role("button", name="Move Café number 3 earlier").click()
    shown.page.wait_for_selector("#trouble:has-text('in 1 second')")
    assert shown.lists() == before
    shown.page.unroute("**/v1/recommend")
    shown.page.wait_for_selector("#trouble p", state="detached", timeout=10_000)
    assert shown.settled() != before


def test_without_a_history_the_page_explains_itself(opened: Open) -> None:
    shown = opened()
    shown.page.get_by_role("button", name="Try an example").click()
    assert len(shown.settled()["plain"]) == 10
    assert len(shown.history()) == 3


def test_it_prints(opened: Open) -> None:
    shown = opened(HISTORY)
    shown.settled()
    paper = shown.page.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    shown.page.emulate_media(media="print")
    shown.page.set_viewport_size({"width": 688, "height": 1000})  # A4 without its margins
    assert shown.fits()
    assert not shown.page.locator("#history-search").is_visible()
