"""The tools for agents, called by a client of the protocol over stdin and stdout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import sasrec
from tests.synthetic import chain_frame, small

pytest.importorskip("mcp")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools") / "run"
    sasrec.train(chain_frame(), folder, **small(num_epochs=1))
    return folder


def called(run: Path, calls: list[tuple[str, dict[str, Any]]]) -> tuple[list[str], list[Any]]:
    """The names of the tools, and for each call its answer, or the text of its error."""
    import anyio
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    async def work() -> tuple[list[str], list[Any]]:
        server = StdioServerParameters(command=sys.executable, args=["-m", "sasrec", "mcp", str(run)])
        async with Client(stdio_client(server)) as client:
            names = [each.name for each in (await client.list_tools()).tools]
            found = [await client.call_tool(name, arguments) for name, arguments in calls]
        return names, [each.content[0].text if each.is_error else each.structured_content for each in found]

    return anyio.run(work)


def test_an_agent_gets_the_lists_reasons_and_neighbours_of_the_model(run: Path) -> None:
    history = ["item-03", "item-07"]
    names, (items, listed, near, why, of_user) = called(
        run,
        [
            ("find_items", {"words": "ITEM-1", "limit": 3}),
            ("recommend", {"history": history, "k": 4, "deny": ["item-01"], "reasons": True}),
            ("similar", {"item": "item-03", "k": 3}),
            ("explain", {"item": "item-09", "history": history}),
            ("recommend", {"user": "u003", "k": 2}),
        ],
    )
    assert names == ["find_items", "recommend", "similar", "explain"]
    model = sasrec.load(run, device="cpu")
    assert len(items["items"]) == 3
    assert all(each["item"].startswith("item-1") for each in items["items"])
    expected = model.recommend(history, 4, deny=["item-01"])
    assert [each["item"] for each in listed["items"]] == [item for item, _ in expected]
    assert [each["score"] for each in listed["items"]] == pytest.approx([score for _, score in expected], abs=1e-5)
    assert all("reasons" in each for each in listed["items"])
    assert [each["item"] for each in near["items"]] == [item for item, _ in model.similar("item-03", 3)]
    effects = model.explain(history, "item-09")["effect"].to_list()
    assert [each["effect"] for each in why["events"]] == pytest.approx(effects, abs=1e-5)
    assert [each["item"] for each in of_user["items"]] == [item for item, _ in model.recommend_user("u003", 2)]


@pytest.mark.slow
def test_a_wrong_call_gets_words_and_the_next_one_is_answered(run: Path) -> None:
    _, (nobody, unknown, large, endless, listed) = called(
        run,
        [
            ("recommend", {}),
            ("similar", {"item": "no such item"}),
            ("recommend", {"history": ["item-03"], "k": 10**9}),
            ("recommend", {"history": ["item-03"], "times": ["NaN"]}),
            ("recommend", {"history": ["item-03"]}),
        ],
    )
    assert "Name a user, or give a history." in nobody
    assert "The item is unknown." in unknown
    assert "`$.k`" in large
    assert "A number is not finite" in endless
    assert len(listed["items"]) == 10


def test_a_run_that_does_not_exist_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sasrec.cli.main import main

    assert main(["mcp", str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err
