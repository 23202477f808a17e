"""Judges a takeover run: what emitters and handlers have written down, and what clients have.

Lines of ``.handled`` files:

``connect SID @TIME``, ``disconnect SID REASON @TIME``, ``takeover SID``, ``recovery SID``
``up KEY NUMBER SENT HANDLED``   an event of the client of this key, with its times
``wrong SID …``                  a handler found other session data, or another answer
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

#: Delays are counted in buckets that grow by this, from so many seconds on.
GROWTH, LEAST = 1.02, 1e-4


def bucket(seconds: float) -> int:
    return math.floor(math.log(max(seconds, LEAST) / LEAST) / math.log(GROWTH))


@dataclass
class Delays:
    """In seconds."""

    counts: Counter[int] = field(default_factory=Counter)
    worst: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bucket(seconds)] += 1
        self.worst = max(self.worst, seconds)

    def merge(self, counts: Iterable[tuple[int, int]], worst: float) -> None:
        for which, count in counts:
            self.counts[which] += count
        self.worst = max(self.worst, worst)

    def percentile(self, part: float) -> float:
        left = part * sum(self.counts.values())
        for which in sorted(self.counts):
            left -= self.counts[which]
            if left <= 0:
                return float(LEAST * GROWTH**which)
        return self.worst


class Hearing:
    """What one client hears: of each stream the numbers follow each other, and of each emitter
    the totals grow.

    :param begins: whether it has heard every stream from its begin on.
    """

    def __init__(self, begins: bool = True) -> None:
        self._begins = begins
        self.last: dict[str, int] = {}
        self._totals: dict[str, int] = {}
        self.faults: Counter[str] = Counter()
        self.examples: list[str] = []
        self._missing: set[tuple[str, int]] = set()

    def hear(self, emitter: str, total: int, target: str, number: int) -> None:
        stream = f"{emitter} {target}"
        last = self.last.get(stream, 0 if self._begins else number - 1)
        if number > last + 1:
            self._missing.update((stream, n) for n in range(last + 1, number))
            self._fault("lost", f"{stream} {last + 1} to {number - 1}", number - last - 1)
        elif number <= last:
            late = (stream, number) in self._missing
            if late:
                self._missing.discard((stream, number))
                self.faults["lost"] -= 1
            self._fault("disordered" if late else "doubled", f"{stream} {number} after {last}")
        elif total <= self._totals.get(emitter, 0):
            self._fault("disordered", f"{stream} {number} ({total}) after {self._totals[emitter]}")
        self.last[stream] = max(last, number)
        self._totals[emitter] = max(total, self._totals.get(emitter, 0))

    def begin_anew(self) -> None:
        """It is connected anew: what was emitted in between is not for it."""
        self._begins = False
        self.last, self._totals = {}, {}
        self._missing.clear()

    def _fault(self, kind: str, text: str, times: int = 1) -> None:
        self.faults[kind] += times
        if len(self.examples) < 20:
            self.examples.append(f"{kind}: {text}")


@dataclass
class Sent:
    """What one emitter has emitted: how many to each target, and to which one is unfinished.

    :ivar late: of those the last ones, which threads have emitted when their worker had left.
    """

    counts: Counter[str]
    unfinished: str | None = None
    late: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, text: str, left: float = math.inf) -> Sent:
        """:param left: when the worker has left, in seconds since the epoch."""
        *whole, rest = text.split("\n")
        emits = [line.split(" ") for line in whole]
        return cls(
            Counter(target for _, target in emits),
            rest.split(" ")[1] if rest else None,
            Counter(target for at, target in emits if float(at) > left),
        )


@dataclass
class Handled:
    """Calls of handlers, of all workers."""

    connects: Counter[str] = field(default_factory=Counter)
    disconnects: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    takeovers: Counter[str] = field(default_factory=Counter)
    recoveries: Counter[str] = field(default_factory=Counter)
    #: When each handler of ``connect`` and ``disconnect`` ran, with its sid and process.
    calls: list[tuple[str, float, str]] = field(default_factory=list)
    #: By key of the client: when, and with which number.
    ups: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    wrong: list[str] = field(default_factory=list)
    delays: Delays = field(default_factory=Delays)

    def read(self, text: str, process: str = "") -> None:
        for line in text.splitlines():
            what, *words = line.split(" ")
            if words[-1].startswith("@"):
                self.calls.append((words[0], float(words.pop()[1:]), process))
            if what == "up":
                key, number, sent, at = words
                self.ups[key].append((float(at), int(number)))
                self.delays.add(float(at) - float(sent))
            elif what == "connect":
                self.connects[words[0]] += 1
            elif what == "disconnect":
                self.disconnects[words[0]].append(" ".join(words[1:]))
            elif what == "takeover":
                self.takeovers[words[0]] += 1
            elif what == "recovery":
                self.recoveries[words[0]] += 1
            else:
                self.wrong.append(line)


#: What must not be.
FAULTS = (
    "disconnects",
    "connect handlers",
    "disconnect handlers",
    "lost to clients",
    "doubled to clients",
    "out of order to clients",
    "lost to servers",
    "doubled to servers",
    "out of order to servers",
    "not acknowledged",
    "wrong sessions or answers",
)


@dataclass
class Verdict:
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    heard: int = 0
    emitted: int = 0
    sent: int = 0
    visits: int = 0
    takeovers: int = 0
    #: Deliveries that are missing of what threads have emitted when their worker had left.
    late: int = 0
    to_clients: Delays = field(default_factory=Delays)
    to_servers: Delays = field(default_factory=Delays)

    @property
    def right(self) -> bool:
        return not any(self.faults.values()) and self.heard > 0 and self.sent > 0

    def fault(self, kind: str, text: str, times: int = 1) -> None:
        assert kind in FAULTS, kind
        self.faults[kind] += times
        self.examples.append(f"{kind}: {text}")


def expected(sent: Mapping[str, Sent], sid: str, room: str) -> Counter[str]:
    """The last number of each stream that a client must have heard."""
    return Counter(
        {
            f"{emitter} {target}": counts
            for emitter, emits in sent.items()
            for target in ("all", room, sid)
            if (counts := emits.counts[target])
        }
    )


def judge(
    clients: Sequence[Mapping[str, Any]],
    sent: Mapping[str, Sent],
    handled: Handled,
    rooms: int,
    threads: bool = False,
) -> Verdict:
    """
    :param threads: handlers run in threads: those begin in order, and may go on in another.
    :param clients: their reports; those whose key is a number have stayed from before the first
        emit on.
    """
    verdict = Verdict(
        emitted=sum(sum(emits.counts.values()) for emits in sent.values()),
        takeovers=sum(handled.takeovers.values()),
        to_servers=handled.delays,
    )
    for text in handled.wrong:
        verdict.fault("wrong sessions or answers", text)
    for client in clients:
        _judge_client(verdict, client)
        _judge_ups(verdict, client, handled, threads)
        if client["key"].isdigit():
            _judge_stay(verdict, client, sent, handled, f"room-{int(client['key']) % rooms}")
    return verdict


def _judge_client(verdict: Verdict, client: Mapping[str, Any]) -> None:
    who = f"client {client['key']} ({client.get('sid')})"
    for reason in client["ends"]:
        verdict.fault("disconnects", f"{who}: {reason}")
    names = {
        "lost": "lost to clients",
        "doubled": "doubled to clients",
        "disordered": "out of order to clients",
    }
    for kind, times in client["faults"].items():
        if times:
            verdict.fault(names[kind], f"{who}: {client['examples'][:3]}", times)
    if client["acked"] != client["sent"]:
        missing = client["sent"] - client["acked"]
        verdict.fault("not acknowledged", f"{who}: {missing} of {client['sent']}", abs(missing))


def _judge_ups(
    verdict: Verdict, client: Mapping[str, Any], handled: Handled, threads: bool
) -> None:
    """Each event was handled once, in the order of the numbers."""
    key = client["key"]
    numbers = [number for _, number in sorted(handled.ups[key])]
    verdict.sent += client["sent"]
    lost = set(range(1, client["sent"] + 1)) - set(numbers)
    if lost:
        verdict.fault("lost to servers", f"client {key}: {sorted(lost)[:5]}", len(lost))
    doubled = len(numbers) - len(set(numbers))
    if doubled:
        verdict.fault("doubled to servers", f"client {key}", doubled)
    disordered = [(a, b) for a, b in zip(numbers, numbers[1:]) if b < a]
    if disordered and not threads:
        verdict.fault("out of order to servers", f"client {key}: {disordered[:5]}", len(disordered))


def _judge_stay(
    verdict: Verdict,
    client: Mapping[str, Any],
    sent: Mapping[str, Sent],
    handled: Handled,
    room: str,
) -> None:
    sid, who = client["sid"], f"client {client['key']}"
    verdict.heard += sum(client["last"].values())
    if handled.connects[sid] != 1 or client["connects"] != 1:
        more = max(handled.connects[sid], client["connects"]) - 1
        verdict.fault("connect handlers", f"{who}: {more} more", abs(more) or 1)
    for reason in handled.disconnects.get(sid, ()):
        verdict.fault("disconnect handlers", f"{who}: {reason}")
    must = expected(sent, sid, room)
    for stream in must.keys() | client["last"].keys():
        emitter, _, target = stream.partition(" ")
        got, count = client["last"].get(stream, 0), must[stream]
        late = sent[emitter].late[target] if emitter in sent else 0
        if got < count - late:
            text = f"{who}: {stream} ends at {got}, not {count}"
            verdict.fault("lost to clients", text, count - got)
        elif got < count:
            verdict.late += count - got
        elif got > count + (sent[emitter].unfinished == target if emitter in sent else 0):
            verdict.fault("doubled to clients", f"{who}: {stream} {got}, of {count}")


#: Seconds from when a worker has seen that all have what it sent until the router says it leaves.
_LEAVING = 0.1

_LEFT = re.compile(r"^(\S+ \S+) INFO worker \S+ leaves \(pid (\d+)\)", re.MULTILINE)


def read_directory(directory: Path, threads: bool = False) -> tuple[dict[str, Sent], Handled]:
    left: dict[str, float] = {}
    if threads:  # which emit until their process ends
        for when, pid in _LEFT.findall((directory / "router.log").read_text()):
            at = datetime.strptime(when, "%Y-%m-%d %H:%M:%S,%f").timestamp()
            left[pid] = at - _LEAVING
    sent = {
        path.stem: Sent.read(path.read_text(), left.get(path.stem.partition(":")[2], math.inf))
        for path in directory.glob("*.sent")
    }
    handled = Handled()
    for path in directory.glob("*.handled"):
        handled.read(path.read_text(), path.stem)
    return sent, handled
