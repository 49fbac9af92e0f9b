"""Handle what the parser (tyro) cannot: recipes, options of the published SASRec code, misspelt options.

Error messages name arguments as Python does; `as_options` replaces these names by options.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeAlias

import tyro

from sasrec.config.settings import DataConfig, RunConfig
from sasrec.config.spellings import OTHER_NAMES, PUBLISHED_FLAGS, PUBLISHED_SPELLINGS, ROLES
from sasrec.errors import ConfigError, for_shell
from sasrec.runtime.ranks import launched

# Options that may be absent. Without these, the help would show `{None}|STR` and `(default: None)`.
OptionalText: TypeAlias = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
OptionalPath: TypeAlias = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
# tyro breaks lines at commas, so a list of values begins a line.
Values: TypeAlias = Annotated[str, tyro.conf.arg(help_behavior_hint=lambda default: f"\n(default: {default})")]
# The settings of `train` know nothing of its help.
_KINDS = dict.fromkeys(("user_column", "item_column", "time_column", "encoding"), OptionalText)
DataConfig.__annotations__.update(_KINDS | {"missing": Values})

_TEXT = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_MENTION = re.compile(rf"""\b([a-z][a-z0-9_]*)=({_TEXT}|[\w./:@…-]*[\w/…])|`([a-z][a-z0-9_]*)`""")
_CALL = re.compile(r"(\b\w+\((?:[^()]|\([^()]*\))*\))")
# Arguments of Python functions that the command line names otherwise.
_OTHERWISE = {"local_copy": "from", "start_from": "state_dict_path"}


def recipe_named_in(arguments: list[str]) -> RunConfig:
    """Return the settings that the other options override. They are needed before these options are parsed.

    --recipe names the file of these settings. Without it, --resume and --inference_only use the config.toml of the
    run, and --final that of the run it names. In all other cases, return the built-in defaults.
    """
    given: dict[str, str] = {}
    for flag, following in zip(arguments, [*arguments, ""][1:], strict=True):
        name, _, value = flag.partition("=")
        given[_spelled(name)] = value or following
    own = Path(given.get("--train_dir", "")) / "config.toml"
    if "--final" in given:
        own = Path(given["--final"]) / "config.toml"
    if "--recipe" in given:
        return RunConfig.load(given["--recipe"])
    existing = own.exists() and {"--resume", "--inference_only", "--final"} & given.keys()
    return RunConfig.load(own) if existing else RunConfig()


def published_spellings(arguments: list[str]) -> list[str]:
    """Return `arguments` with options of the published SASRec code for PyTorch replaced by options of sasrec.

    For `prepare`, the names of settings such as --time_column are replaced.
    """
    if arguments[:1] == ["prepare"]:
        names = {f"--{setting}": f"--{name}" for name, setting in ROLES.items()}
        pairs = [word.partition("=") for word in arguments]
        return [names.get(_spelled(name), name) + sign + value for name, sign, value in pairs]
    arguments = _flags_without_values(arguments)
    _refuse_two_spellings([_spelled(word.partition("=")[0]) for word in arguments])
    if "--multi_gpu" in map(_spelled, arguments) and not launched():
        raise ConfigError(
            "--multi_gpu needs torchrun. Start a process for each of N devices: "
            "torchrun --nproc_per_node=N -m sasrec train …"
        )
    # --train=FILE: only an option that stands for one other option can have its value in the same word.
    words = [
        given.replace("--train=", "--dataset=", 1) if given.startswith("--train=") else given
        for given in arguments
    ]
    return [part for given in words for part in PUBLISHED_SPELLINGS.get(_spelled(given), (given,))]


def _refuse_two_spellings(options: list[str]) -> None:
    """Raise ConfigError if two options set the same thing, such as --norm_first and --norm."""
    given: dict[str, str] = {}
    for option in options:
        sets = PUBLISHED_SPELLINGS.get(option, (option,))[:1]
        for name in sets:
            if given.setdefault(name, option) != option:
                raise ConfigError(f"{given[name]} and {option} both set {name}. Remove one of them.")


def _flags_without_values(arguments: list[str]) -> list[str]:
    """Return `arguments` with `--FLAG true` and `--FLAG=true`, as published code has them, replaced by `--FLAG`.

    A flag that is false is omitted, except that `--norm_first false` asks for the other norm.
    """
    words, replaced = list(arguments), []
    while words:
        word = words.pop(0)
        name, _, value = word.partition("=")
        if _spelled(name) in PUBLISHED_FLAGS:
            if not value and words and words[0].lower() in ("true", "false"):
                value = words.pop(0)
            if value.lower() == "false":
                replaced += ["--no_norm_first"] if _spelled(name) == "--norm_first" else []
                continue
            word = name if value.lower() == "true" else word
        replaced.append(word)
    return replaced


def joined_values(arguments: list[str], commands: dict[str, type]) -> list[str]:
    """Return `arguments` with `--history -5,3` as `--history=-5,3`, for all options that take a text.

    The parser would take -5,3 for an option, but no option of sasrec begins with a single hyphen, except -h.
    """
    command = commands.get(next(iter(arguments), ""))
    texts = _texts(command) if command else set()
    words: list[str] = []
    for word in arguments:
        value = len(word) > 1 and word[0] == "-" and word[1] != "-" and word != "-h"
        if value and words and _spelled(words[-1]) in texts:
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _texts(command: type) -> set[str]:
    """The options of a command that take a text, as they are typed, with underscores."""
    return {f"--{each.name}" for each in dataclasses.fields(command) if each.type == "OptionalText"}


def misspelt(arguments: list[str], commands: dict[str, type]) -> str | None:
    """Return a message on the first unknown command or option, with a suggestion; None if all are known."""
    command, *others = arguments
    for word, following in zip(arguments, [*others, "--"], strict=True):
        # A path "" would mean the current folder, and seeds without numbers the default ones.
        if (
            word == ""
            or (word.startswith("--") and word.endswith("="))
            or (word == "--seeds" and following[:2] == "--")
        ):
            return f"a value is empty after {word or 'an option'}; give a value, or remove the option"
    if command in ("--help", "-h") or command.startswith("--tyro"):
        return None
    if command not in commands:
        kind = "option" if command.startswith("-") else "command"
        known_words = [*commands, "--help", "--version"]
        return f"unknown {kind} {command}; {_nearest(command, known_words) or 'sasrec --help lists the commands'}"
    known = {"--help", *_options(commands[command])}
    if command == "train" and others and not others[0].startswith("-"):
        return f"train takes its data as an option; did you mean --dataset {for_shell(others[0])}?"
    if command == "recommend" and [word[:1] == "-" for word in others[:2]] == [False, False]:
        return f"recommend takes one run; did you mean --user {for_shell(others[1])}?"
    for before, word in zip(["", *others], others, strict=False):
        option = _spelled(word.partition("=")[0])
        if before.endswith(",") and not word.startswith("-"):
            return f"a blank divides {before} and {word}; write {before}{word} without the blank"
        if word.startswith("--") and option not in known and option != "--":
            elsewhere = [name for name, other in commands.items() if option in _options(other)]
            meant = OTHER_NAMES.get(option)
            remedy = (
                f"did you mean {meant}?"
                if meant in known
                else f"it is an option of {elsewhere[0]}"
                if elsewhere and not any(each.startswith(f"{option}_") for each in known)
                else _nearest(option, known) or f"sasrec {command} --help lists the options"
            )
            if _spelled(before) in _texts(commands[command]):
                remedy += f"; if {word} is the value of {before}, write {before}={word}"
            return f"unknown option {word.partition('=')[0]} of {command}; {remedy}"
    return None


def as_options(message: str, commands: Iterable[type]) -> str:
    """Return an error message with arguments spelt as options: `time=True` as `--time`, "`split`" as `--split`.

    Errors name arguments as Python does, because callers from Python get the same messages.
    """
    known = set().union(*map(_options, commands))

    def option(mention: re.Match[str]) -> str:
        name, value = mention[1] or mention[3], mention[2] or ""
        if value[:1] in ("'", '"'):
            with contextlib.suppress(ValueError, SyntaxError):
                value = ast.literal_eval(value)
        name = f"--{_OTHERWISE.get(name, name)}"
        if name not in known:
            return mention[0]
        if value in ("True", "False"):
            return name if value == "True" else name.replace("--", "--no_", 1)
        return f"{name} {for_shell(value)}" if value else name

    # A call such as Duration(time_unit='us') is in the text of a library.
    parts = _CALL.split(message)
    return "".join(part if at % 2 else _MENTION.sub(option, part) for at, part in enumerate(parts))


def _options(command: type) -> set[str]:
    """The options of a command as they are typed, with underscores."""
    found: set[str] = set()
    for field in dataclasses.fields(command):
        if field.name == "config":
            parts = dataclasses.fields(RunConfig)
            fields = [each for part in parts for each in dataclasses.fields(getattr(RunConfig(), part.name))]
        else:
            fields = [] if "Positional" in str(field.type) else [field]
        for each in fields:
            name = each.name.rstrip("_")
            found |= {f"--{name}", f"--no_{name}"} if str(each.type) == "bool" else {f"--{name}"}
    return found


def _nearest(word: str, known: Iterable[str]) -> str:
    longer = [each for each in sorted(known) if each.startswith(f"{word}_")]  # --user for --user_column
    near = longer or difflib.get_close_matches(word, sorted(known), n=1)
    return f"did you mean {near[0]}?" if near else ""


def _spelled(word: str) -> str:
    """Return an option with underscores in place of hyphens, because the command line accepts both."""
    return word.replace("-", "_").replace("__", "--", 1)
