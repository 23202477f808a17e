"""Parse the command line of ``sio``, and format its help. Pure."""

from __future__ import annotations

import difflib
import re
import textwrap
from dataclasses import dataclass, field
from typing import Iterable, Optional, Sequence

from ..common.clusters import USUAL
from ..common.emission import EmissionError, next_word
from ..common.limits import REBALANCE_RATE, REBALANCE_TOLERANCE


class UsageError(ValueError):
    """The command line is invalid; the text says why."""


@dataclass(frozen=True)
class Command:
    name: str
    summary: str
    #: Further text for ``sio help COMMAND``.
    details: str
    #: The names of its arguments, and how many it takes.
    arguments: str = ""
    least: int = 0
    most: Optional[int] = 0
    #: Options by name, with the name of their value, or "" if they have none. All commands have
    #: ``--json``.
    options: dict[str, str] = field(default_factory=dict)
    #: What completes its arguments: ``workers``, ``groups``, ``commands``.
    completes: str = ""
    #: Whether it only prints figures; then its exit status is "unknown" if supervisord is down.
    figures: bool = False

    @property
    def usage(self) -> str:
        options = [f"[{f'{name} {value}'.strip()}]" for name, value in self.options.items()]
        json = [] if self.name == "help" else ["[--json]"]
        return " ".join(filter(None, ["sio", self.name, self.arguments, *options, *json]))


#: Comes before the command, because arguments of a command may be any words.
CLUSTER_OPTION = "--cluster"

_NAMESPACE = {"--namespace": "NAMESPACE"}
_NAMES = "NAME is a worker, or a group (workers or workers:*) for all of its workers."

COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command(
            "status",
            "Show the port, the router, the relay, the workers",
            "The same as sio alone. The exit status is 0 when all configured parts serve, 3 when "
            "a part does not run, 4 when supervisord does not answer.",
            figures=True,
        ),
        Command(
            "workers",
            "Show what each worker has done since its start",
            "Sessions it has and has opened, Engine.IO messages in from its clients and out to "
            "them, CPU time, how late its loop ran in the last second, memory. The exit status is "
            "0 when the workers serve, 3 when one does not, 4 when supervisord does not answer.",
            figures=True,
        ),
        Command(
            "top",
            "Show rates, each second, until q is typed",
            "New sessions, events in and out, CPU, memory and the lag of the loop of each worker. "
            "Prints one sample and ends with --json, or when its output is not a terminal.",
            figures=True,
        ),
        Command(
            "sockets",
            "Show the clients of all workers",
            "--room shows only the clients of a room, --namespace those of another namespace than "
            "/. --limit is 1000 by default, and 10000 at most. A client's own room, its sid, is "
            "not shown.",
            options={"--room": "ROOM", **_NAMESPACE, "--limit": "N"},
            figures=True,
        ),
        Command(
            "rooms",
            "Show the rooms and how many clients are in each",
            "The largest room comes first. The own room of each client, its sid, is not shown.",
            options=_NAMESPACE,
            figures=True,
        ),
        Command(
            "emit",
            "Emit an event to the clients of all workers",
            'Arguments are JSON: sio emit news \'{"text": "hello"}\' 2 \'"a string"\'. Write an '
            "event or a room with a space as a JSON string, too.",
            arguments="EVENT [JSON ...]",
            least=1,
            most=None,
            options={"--room": "ROOM", **_NAMESPACE, "--to": "SID"},
        ),
        Command(
            "kick",
            "Disconnect a client",
            "SID is shown by sio sockets. The client's disconnect handler runs.",
            arguments="SID",
            least=1,
            most=1,
            options=_NAMESPACE,
        ),
        Command(
            "reload",
            "Restart workers, one after the other",
            "Without a name, restarts all workers. Each worker gets no new sessions for two "
            "seconds, is stopped and started; the next one follows when it is ready. Stops at a "
            "worker that does not become ready. With takeover there are no two seconds: the "
            "clients stay connected, and the new process adopts them when it is ready. With "
            "--surge the group has one more process meanwhile, which is ready before the first "
            f"worker is stopped, and another worker adopts the clients at once. {_NAMES}",
            arguments="[NAME ...]",
            most=None,
            options={"--surge": ""},
            completes="workers",
        ),
        Command(
            "drain",
            "Place no new sessions on a worker",
            "Its sessions stay. Lasts until sio undrain, or until the process ends: with takeover "
            f"another worker then adopts its sessions, not its successor. {_NAMES}",
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
            "To N, by +N or -N, or to the number of cores (max). Processes with the highest "
            "numbers are removed; with takeover the others adopt their clients. Ends when the "
            "added processes are ready, with exit status 1 when one of them has failed.",
            arguments="GROUP N|+N|-N|max",
            least=2,
            most=2,
            completes="groups",
        ),
        Command(
            "rebalance",
            "Spread the clients evenly over the workers",
            "Workers with more than their share close connections of some clients, up to "
            f"{REBALANCE_RATE} a second, and those come back to the workers that have fewer; with "
            "recovery to their sessions. Does nothing where each worker is within "
            f"{REBALANCE_TOLERANCE:.0%} of its share. Ctrl-C stops it. The exit status is 1 when "
            "the load is uneven in the end.",
        ),
        Command(
            "reload-tls",
            "Read the certificate and its key again",
            "New connections use them; open connections do not change.",
        ),
        Command(
            "help",
            "Show more about a command",
            "Without a command, lists all commands.",
            arguments="[COMMAND]",
            most=1,
            completes="commands",
        ),
    )
}


@dataclass
class Line:
    """A parsed command line."""

    command: Command
    arguments: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    json: bool = False
    #: The text after the command, as typed.
    rest: str = ""
    cluster: str = USUAL

    @property
    def namespace(self) -> str:
        name = self.options.get("--namespace", "/")
        return name if name.startswith("/") else f"/{name}"


def parse_line(text: str) -> Line:
    """Parse the text after ``sio``.

    A value with a space is written as a JSON string, because the shell has removed its quotes.

    :raises UsageError: when the text is invalid.
    """
    cluster, text = split_cluster(text)
    line = _parse_command(text)
    line.cluster = cluster
    return line


def split_cluster(text: str) -> tuple[str, str]:
    """Split ``--cluster NAME`` from the command after it.

    :raises UsageError: when the name is missing.
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
        # Arguments of emit may be any words, so only the first one is examined.
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
                    f"{CLUSTER_OPTION} comes first: sio {CLUSTER_OPTION} NAME {command.name}"
                )
            if name not in command.options:
                hint = did_you_mean(name, [*command.options, "--json"])
                raise UsageError(f"unknown option {name}{hint or f'; usage: {command.usage}'}")
            if not command.options[name]:
                if equals:
                    raise UsageError(f"{name} takes no value; usage: {command.usage}")
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
        raise UsageError(f"unexpected argument {surplus}; usage: {command.usage}")
    return line


def _find(name: str) -> Command:
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS, "sio ") or ", see: help sio"
        raise UsageError(f"unknown command: sio {name}{hint}")
    return COMMANDS[name]


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    nearest = difflib.get_close_matches(word, list(known), 1)
    return f", did you mean {prefix}{nearest[0]}?" if nearest else ""


def format_help(topics: Sequence[str]) -> list[str]:
    """The lines of ``sio help``, or of ``sio help COMMAND``.

    :raises UsageError: when the command does not exist.
    """
    if topics:
        command = _find(topics[0])
        return [
            *_wrap(f"usage: {_unbroken(command.usage)}", " " * len("usage: ")),
            *_wrap(f"{command.summary}. {command.details}"),
        ]
    heads = {f"sio {c.name} {c.arguments}".rstrip(): c.summary for c in COMMANDS.values()}
    heads[f"sio {CLUSTER_OPTION} NAME ..."] = f"Run a command for another cluster than {USUAL}"
    wide = max(map(len, heads))
    return [f"{head:{wide}}  {summary}" for head, summary in heads.items()]


def _wrap(text: str, indent: str = "") -> list[str]:
    lines = textwrap.wrap(text, 79, subsequent_indent=indent, break_on_hyphens=False)
    return [line.replace("\xa0", " ") for line in lines]


def _unbroken(usage: str) -> str:
    """Keep an option and its value on one line: textwrap does not break at such spaces."""
    return re.sub(r"\[[^]]*\]", lambda part: part[0].replace(" ", "\xa0"), usage)
