"""Tools for agents, by the Model Context Protocol (modelcontextprotocol.io): the routes of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from sasrec import __version__
from sasrec.serving.app import build
from sasrec.serving.figures import Figures
from sasrec.serving.limits import Limited
from sasrec.serving.service import Service

_WAIT = 60.0  # seconds for an answer, because an agent asks for few
_ABOUT = """\
Recommendations of items, from what somebody did before. Items are named by their ids: find_items finds
them by words of their titles. A history is a list of ids, oldest first."""


def agent_tools(run: Path, fallback: str | None = "popular") -> MCPServer:
    """Return tools that answer from a run or an export. Raises: the errors of `sasrec.load`."""
    figures = Figures()
    service = Service(None, {}, fallback, _WAIT, figures.a_pass)
    service.add("model", run, 1.0)
    app: Any = Limited(build(service, figures), tokens=None, finished=figures.request)
    server = MCPServer("sasrec", version=__version__, instructions=_ABOUT, log_level="WARNING")

    async def ask(path: str, body: dict[str, Any] | None = None, **query: Any) -> dict[str, Any]:
        """Send a request to the routes of the server, without a network, so that both answer the same."""
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        sent = {name: value for name, value in (body or {}).items() if value is not None}
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            try:
                reply = await (client.post(path, json=sent) if sent else client.get(path, params=query))
            except ValueError:
                raise ToolError("A number is not finite, or a text is not valid Unicode.") from None
        answer: dict[str, Any] = reply.json()
        if reply.status_code != httpx2.codes.OK:
            raise ToolError(answer["error"]["message"].partition(" GET /")[0])  # agents know tools, not routes
        return {name: value for name, value in answer.items() if name not in ("request_id", "model")}

    @server.tool()
    async def find_items(words: str, limit: int = 20) -> dict[str, Any]:
        """Find items by words of their titles or ids, the most popular first. `limit`: at most 100."""
        return await ask("/v1/items", query=words, limit=limit)

    @server.tool()
    async def recommend(
        history: list[str | int] | None = None,
        user: str | int | None = None,
        k: int = 10,
        times: list[float] | None = None,
        deny: list[str | int] | None = None,
        reasons: bool = False,
    ) -> dict[str, Any]:
        """Return the k best next items for a history of item ids, or for a user of the data.

        `times`: seconds, one for each item, for a model that reads them. `deny`: ids that the list must not have.
        `reasons`: name the events of the history that speak most for each item.
        """
        body = {"history": history, "user": user, "k": k, "times": times, "deny": deny, "reasons": reasons}
        return await ask("/v1/recommend", body | {"titles": True})

    @server.tool()
    async def similar(item: str | int, k: int = 10) -> dict[str, Any]:
        """Return the k items that are most like an item, with the cosine of their vectors."""
        return await ask("/v1/similar", {"item": item, "k": k})

    @server.tool()
    async def explain(
        item: str | int,
        history: list[str | int] | None = None,
        user: str | int | None = None,
        times: list[float] | None = None,
    ) -> dict[str, Any]:
        """Return how much each event of a history, or of a user of the data, raises the score of an item."""
        return await ask("/v1/explain", {"item": item, "history": history, "user": user, "times": times})

    return server
