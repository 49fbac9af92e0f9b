"""The command `sasrec serve`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sasrec.cli.arguments import OptionalPath, OptionalText
from sasrec.cli.console import err, say
from sasrec.errors import ConfigError, amount

if TYPE_CHECKING:
    from sasrec.serving.service import Service


@dataclass(frozen=True)
class Serve:
    """Answer requests over HTTP: lists, reasons, new events, and a page to try it.

    The server knows the users of the run's data and of the events that clients send.

    Example: sasrec serve runs/final, then open http://127.0.0.1:8000/

    Two models, each for a share of the users: sasrec serve old=runs/last new=runs/next --share new=0.1
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[NAME=]RUN ...", help_behavior_hint="")
    ]
    """Runs, exports or RUN:BASELINE. If there are several, give each a name, such as new=runs/next."""
    host: str = "127.0.0.1"
    """Address to listen on. An address that other machines can reach needs --tokens."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    tokens: OptionalPath = None
    """File with the tokens of clients, of 16 characters or more: lines SCOPES TOKEN, such as read,write 6f1c…."""
    events: OptionalText = None
    """Where to keep events that clients send: an SQLite file or postgresql://…. Default: RUN.events.sqlite."""
    fallback: Literal["popular", "recent", "groups", "none"] = "popular"
    """List for users without a known item: popular, recent (7 days) or groups; none refuses these requests."""
    rules: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Rules that requests may name, as NAME=FILE, such as cheap=cheap.toml (docs/how-to/rules.md)."""
    share: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Share of the users that a model serves, as NAME=0.1. Models that are not named share the rest equally."""
    wait: float = 0.2
    """Seconds that a request may wait for its turn; a request that would wait longer gets status 429."""
    drain: float = 1.0
    """Seconds after SIGTERM in which the server still accepts connections, while /readyz says 503."""
    log: OptionalPath = None
    """File that gets a line of JSON for each request, without histories and users; - is stdout."""

    def run(self) -> None:
        """Load the models and serve."""
        began = time.monotonic()
        try:
            from sasrec.serving.auth import tokens_of
            from sasrec.serving.figures import Figures
            from sasrec.serving.server import is_loopback, listening, run, stream_of
        except ImportError as error:
            raise ConfigError(f'the server needs {error.name}: pip install "sasrec[serve]".') from None
        if not is_loopback(self.host) and self.tokens is None:
            raise ConfigError(
                f"{self.host} can be reached by others, so the server needs --tokens FILE there. Give one, or use "
                "--host 127.0.0.1."
            )
        if not self.wait > 0 or not self.drain >= 0:
            raise ConfigError("--wait must be above 0 and --drain at least 0. Use such seconds.")
        if self.tokens is not None:
            tokens_of(self.tokens)  # what is wrong is said before a model is loaded
        if self.log is not None and str(self.log) != "-":
            stream_of(self.log).close()
        figures = Figures()
        with listening(self.host, self.port) as opened:
            service = self._service(figures)
            shown = f"[{self.host}]" if ":" in self.host else self.host
            for name, model in service.models.items():
                share = "" if len(service.models) == 1 else f", {model.share:.0%} of users"
                say(err, f"{name}: {model.engine.recommender!r}, weights {model.engine.digest}{share}")
            if service.store is not None:
                say(err, f"events are kept in {service.store.where}")
            address = f"http://{shown}:{opened.getsockname()[1]}/"

            def ready() -> None:
                say(err, f"ready after {time.monotonic() - began:.1f} s: {address}")

            lost = run(
                service,
                opened,
                tokens=self.tokens,
                figures=figures,
                log=self.log,
                drain=self.drain,
                ready=ready,
            )
        end = (
            "every request that was accepted has its answer" if not lost else f"{amount(lost, 'request')} got 503"
        )
        say(err, f"stopped; {end}")

    def _service(self, figures: object) -> Service:
        """Return the models, the rules and the store."""
        from sasrec.ranking.rules import Rules
        from sasrec.serving.figures import Figures
        from sasrec.serving.history_store import open_store
        from sasrec.serving.service import Service, shares_of

        assert isinstance(figures, Figures)
        paths = _named(self.runs)
        shares = shares_of(
            list(paths),
            {name: _share(text) for name, text in _pairs("--share", self.share, "NAME=SHARE, such as new=0.1")},
        )
        rules = {
            name: Rules.load(path)
            for name, path in _pairs("--rules", self.rules, "NAME=FILE, such as cheap=cheap.toml")
        }
        first = next(iter(paths.values()))
        where = self.events or str(first.with_name(f"{first.name or 'sasrec'}.events.sqlite".replace(":", "-")))
        os.environ.setdefault(
            "OMP_NUM_THREADS", "1"
        )  # one pass has one thread, so that models do not wait in turns
        fallback = None if self.fallback == "none" else self.fallback
        service = Service(None, rules, fallback, self.wait, figures.a_pass)
        try:
            for name, path in paths.items():
                service.add(name, path, shares[name])
            service.store = open_store(where)  # now, so that a wrong RUN leaves no file
        except BaseException:
            service.close()
            raise
        return service


@dataclass(frozen=True)
class Mcp:
    """Give a model to an agent, as tools of the Model Context Protocol over stdin and stdout.

    An agent is a program with a language model that calls tools. The tools are find_items, recommend, similar and
    explain. They answer as `sasrec serve` does.

    Example, as the command of a server in the settings of the agent: sasrec mcp runs/final
    """

    run_dir: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run or export to answer from; also RUN:BASELINE."""
    fallback: Literal["popular", "recent", "groups", "none"] = "popular"
    """List for users without a known item: popular, recent (7 days) or groups; none refuses these requests."""

    def run(self) -> None:
        """Load the model and answer until stdin ends."""
        try:
            from sasrec.serving.agent_tools import agent_tools
        except ImportError as error:
            raise ConfigError(f'the tools need {error.name}: pip install "sasrec[mcp]".') from None
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        agent_tools(Path(self.run_dir), None if self.fallback == "none" else self.fallback).run()


def _named(runs: tuple[str, ...]) -> dict[str, Path]:
    """Return name -> path. A single run needs no name."""
    named: dict[str, Path] = {}
    for text in runs:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = ("model" if len(runs) == 1 else Path(text).name), text
        if not name or not path:
            raise ConfigError(f"{text} names no run. Write NAME=RUN, or a run.")
        if name in named:
            raise ConfigError(f"two models are named {name}. Give them names: a=RUN b=RUN.")
        named[name] = Path(path)
    if not named:
        raise ConfigError("name a run or an export to serve.")
    return named


def _pairs(option: str, texts: tuple[str, ...], form: str) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, (name, equals, value) in zip(texts, pairs, strict=True) if not (name and value)]:
        raise ConfigError(f"{option} {wrong[0]} has no name or no value. Write {option} {form}.")
    return [(name, value) for name, _, value in pairs]


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--share needs a number such as 0.1, not {text}. Correct it.") from None
