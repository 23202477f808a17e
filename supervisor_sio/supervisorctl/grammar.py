"""``sio …`` as it is typed: pure, from the words to a command with its arguments, and its help."""

from __future__ import annotations

import difflib
import re
import textwrap
from dataclasses import dataclass, field
from typing import Iterable, Optional, Sequence

from ..common.clusters import USUAL
from ..common.emission import EmissionError, next_word


class UsageError(ValueError):
    """Words that are no command; the text is for a person."""


@dataclass(frozen=True)
class Command:
    name: str
    summary: str
    #: More, for its own help.
    details: str
    #: How its arguments are called, and how many there may be.
    arguments: str = ""
    least: int = 0
    most: Optional[int] = 0
    #: Options by name, with what their value is called, or nothing where they have none;
    #: ``--json`` they all have.
    options: dict[str, str] = field(default_factory=dict)
    #: What completes an argument: ``workers``, ``groups``, ``commands``.
    completes: str = ""
    #: Whether it only prints figures; supervisord out of reach is then "unknown".
    figures: bool = False

    @property
    def usage(self) -> str:
        options = [f"[{f'{name} {value}'.strip()}]" for name, value in self.options.items()]
        json = [] if self.name == "help" else ["[--json]"]
        return " ".join(filter(None, ["sio", self.name, self.arguments, *options, *json]))


#: Stands before the command, whose arguments may be anything.
CLUSTER_OPTION = "--cluster"

_NAMESPACE = {"--namespace": "NAMESPACE"}
_NAMES = "A name is that of a worker, or of a group (workers or workers:*) for all of its workers."

COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command(
            "status",
            "Show the port, the router, the relay, the workers",
            "The same as sio alone. The exit status is 0 when all that is configured to serve "
            "does, 3 when something does not run, 4 when supervisord cannot be asked.",
            figures=True,
        ),
        Command(
            "workers",
            "Show what each worker has done since its start",
            "Sessions it has and has opened, Engine.IO messages in from its clients and out to "
            "them, CPU time, how late its loop ran in the last second, memory. Exit status as of "
            "sio status.",
            figures=True,
        ),
        Command(
            "top",
            "Show rates, each second, until q is typed",
            "New sessions, events in and out, CPU, memory and the lag of the loop of each worker. "
            "Prints one sample and ends with --json, or when its output is no terminal.",
            figures=True,
        ),
        Command(
            "sockets",
            "Show the clients of all workers",
            "Those of one room, or of another namespace than /; 1000 of them unless --limit says "
            "otherwise (up to 10000). A client's own room, its sid, is not shown.",
            options={"--room": "ROOM", **_NAMESPACE, "--limit": "N"},
            figures=True,
        ),
        Command(
            "rooms",
            "Show the rooms and how many clients are in each",
            "The largest first. The room of each client's own, its sid, is not shown.",
            options=_NAMESPACE,
            figures=True,
        ),
        Command(
            "emit",
            "Emit an event to the clients of all workers",
            'Arguments are JSON: sio emit news \'{"text": "hello"}\' 2 \'"a string"\'. An event '
            "or a room with a space is written as a JSON string, too.",
            arguments="EVENT [JSON ...]",
            least=1,
            most=None,
            options={"--room": "ROOM", **_NAMESPACE, "--to": "SID"},
        ),
        Command(
            "kick",
            "Disconnect a client",
            "SID as sio sockets shows it. The client's disconnect handler runs.",
            arguments="SID",
            least=1,
            most=1,
            options=_NAMESPACE,
        ),
        Command(
            "reload",
            "Restart workers, one after the other",
            "All of them without a name. Each gets no new sessions for two seconds, is stopped "
            "and started; the next one's turn comes when it is ready. Stops at one that does not "
            "come back. With takeover, without the two seconds: its clients stay connected, the "
            "new process goes on with them when it is ready. With --surge the group has one more "
            "process meanwhile, which is ready before the first is stopped, and another worker "
            f"goes on with them at once. {_NAMES}",
            arguments="[NAME ...]",
            most=None,
            options={"--surge": ""},
            completes="workers",
        ),
        Command(
            "drain",
            "Place no new sessions on a worker",
            "Those it has stay. Lasts until sio undrain, or until the process ends: with takeover "
            f"another worker goes on with them then, and not its successor. {_NAMES}",
            arguments="NAME ...",
            least=1,
            most=None,
            completes="workers",
        ),
        Command(
            "undrain",
            "Place new sessions on a worker again",
            _NAMES,
            arguments="NAME ...",
            least=1,
            most=None,
            completes="workers",
        ),
        Command(
            "scale",
            "Add processes to a group, or remove some",
            "To N, by +N or -N, or to as many as there are cores. Those with the highest numbers "
            "leave; with takeover the others go on with their clients. Ends when those that were "
            "added are ready, with 1 when one of them has failed.",
            arguments="GROUP N|+N|-N|max",
            least=2,
            most=2,
            completes="groups",
        ),
        Command(
            "reload-tls",
            "Read the certificate and its key again",
            "For connections from now on; open ones are not touched.",
        ),
        Command(
            "help",
            "Show more about a command",
            "Or about all of them.",
            arguments="[COMMAND]",
            most=1,
            completes="commands",
        ),
    )
}


@dataclass
class Line:
    """A command as it was typed."""

    command: Command
    arguments: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    json: bool = False
    #: What followed the command, as it was typed.
    rest: str = ""
    cluster: str = USUAL

    @property
    def namespace(self) -> str:
        name = self.options.get("--namespace", "/")
        return name if name.startswith("/") else f"/{name}"


def parse_line(text: str) -> Line:
    """Read what follows ``sio``.

    A value with a space is written as a JSON string: the shell's quotes are gone.

    :raises UsageError: when it cannot be read.
    """
    cluster, text = split_cluster(text)
    line = _parse_command(text)
    line.cluster = cluster
    return line


def split_cluster(text: str) -> tuple[str, str]:
    """The cluster that is named in front of a command, and the rest.

    :raises UsageError: when its name is missing.
    """
    text = text.strip()
    option, _, rest = text.partition(" ")
    option, equals, name = option.partition("=")
    if option != CLUSTER_OPTION:
        return USUAL, text
    if not equals:
        name, _, rest = rest.strip().partition(" ")
    if not name:
        raise UsageError(f"{CLUSTER_OPTION} needs the name of a cluster")
    return name, rest.strip()


def _parse_command(text: str) -> Line:
    try:
        if text.startswith("-"):
            name, rest = ("help" if text in ("--help", "-h") else "status"), text
        else:
            name, rest = next_word(text)
        command = _find(name or "status")
        words = rest.split()
        # Of emit's arguments, which may have any words in them, the first.
        if {"--help", "-h"} & set(words[:1] if name == "emit" else words):
            return Line(COMMANDS["help"], [command.name] if rest != text else [])
        if name == "emit":
            return Line(command, rest=rest)
        return _parse(command, rest)
    except EmissionError as error:
        raise UsageError(str(error)) from None


def _parse(command: Command, rest: str) -> Line:
    line = Line(command, rest=rest)
    while rest:
        quoted = rest.startswith('"')
        word, rest = next_word(rest)
        if quoted or not word.startswith("--"):
            line.arguments.append(word)
        elif word == "--json" and command.name != "help":
            line.json = True
        else:
            name, equals, value = word.partition("=")
            if name == CLUSTER_OPTION:
                raise UsageError(
                    f"{CLUSTER_OPTION} stands first: sio {CLUSTER_OPTION} NAME {command.name}"
                )
            if name not in command.options:
                hint = _did_you_mean(name, [*command.options, "--json"])
                raise UsageError(f"unknown option {name}{hint or f'; usage: {command.usage}'}")
            if not command.options[name]:
                if equals:
                    raise UsageError(f"{name} has no value; usage: {command.usage}")
                line.options[name] = value
                continue
            if not equals:
                value, rest = next_word(rest)
            if not value:
                raise UsageError(f"{name} needs a value")
            line.options[name] = value
    if len(line.arguments) < command.least:
        raise UsageError(f"sio {command.name} needs {command.arguments}")
    if command.most is not None and len(line.arguments) > command.most:
        surplus = line.arguments[command.most]
        raise UsageError(f"one word too many: {surplus}; usage: {command.usage}")
    return line


def _find(name: str) -> Command:
    if name not in COMMANDS:
        hint = _did_you_mean(name, COMMANDS, "sio ") or ", see: help sio"
        raise UsageError(f"unknown command: sio {name}{hint}")
    return COMMANDS[name]


def _did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    nearest = difflib.get_close_matches(word, list(known), 1)
    return f", did you mean {prefix}{nearest[0]}?" if nearest else ""


def format_help(topics: Sequence[str]) -> list[str]:
    """The lines of ``sio help``, or of ``sio help COMMAND``.

    :raises UsageError: when there is no such command.
    """
    if topics:
        command = _find(topics[0])
        return [
            *_wrap(f"usage: {_unbroken(command.usage)}", " " * len("usage: ")),
            *_wrap(f"{command.summary}. {command.details}"),
        ]
    heads = {f"sio {c.name} {c.arguments}".rstrip(): c.summary for c in COMMANDS.values()}
    heads[f"sio {CLUSTER_OPTION} NAME ..."] = f"Any of these, of another cluster than {USUAL}"
    wide = max(map(len, heads))
    return [f"{head:{wide}}  {summary}" for head, summary in heads.items()]


def _wrap(text: str, indent: str = "") -> list[str]:
    lines = textwrap.wrap(text, 79, subsequent_indent=indent, break_on_hyphens=False)
    return [line.replace("\xa0", " ") for line in lines]


def _unbroken(usage: str) -> str:
    """An option and its value stay on one line: textwrap leaves such spaces alone."""
    return re.sub(r"\[[^]]*\]", lambda part: part[0].replace(" ", "\xa0"), usage)
