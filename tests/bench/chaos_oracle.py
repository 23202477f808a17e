"""What was emitted beside what was received: what is lost, doubled, out of order.

Pure. A *session* is a client's connection to a namespace, from the moment at which it was ready
to its end; who comes back has a new one. A *stream* is all that one process emits to one
target; its numbers begin at 1. What may be missing, and nothing else:

* of a session's streams, what was emitted before it was ready (a moment more is allowed, for
  the emits that were on their way), and what came after the last it got, if the session has ended;
* emits of a process within ``BEFORE_KILL`` before it was killed: they were in its memory only;
* an emit that the process has begun and not ended.

What may be missing must be counted as dropped.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: Seconds.
BEFORE_KILL = 1.0
ON_ITS_WAY = 1.0


class Emit(NamedTuple):
    number: int
    total: int
    at: float
    done: bool
    size: int


@dataclass
class Session:
    sid: str
    room: str
    transports: str
    begins: float
    #: Infinity, if it has lasted.
    ends: float = float("inf")
    #: Numbers of each stream as they came, with the emitter's total.
    got: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    #: Totals of each emitter as they came.
    order: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    cut: int = 0

    @property
    def tag(self) -> str:
        return self.sid.partition(".")[0]

    def is_target(self, stream: str) -> bool:
        return stream.partition(" ")[2] in ("all", self.room, self.sid)


@dataclass
class Verdict:
    emitted: int = 0
    delivered: int = 0
    sessions: int = 0
    lasted: int = 0
    #: Descriptions.
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    cut: int = 0
    #: Emits that are missing and may be: emitter, total, tag of the worker that should have got it.
    allowed: set[tuple[str, int, str]] = field(default_factory=set)
    #: The same of those that are lost.
    missing: set[tuple[str, int, str]] = field(default_factory=set)
    asked: int = 0
    unanswered: list[str] = field(default_factory=list)


def read_sessions(lines: Iterable[dict[str, Any]]) -> dict[str, Session]:
    """From what the clients have written."""
    sessions: dict[str, Session] = {}
    early: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def got(session: Session, line: dict[str, Any]) -> None:
        session.got[line["stream"]].append((line["number"], line["total"]))
        session.order[line["stream"].partition(" ")[0]].append(line["total"])
        session.cut += not line["whole"]

    for line in lines:
        sid = line["sid"]
        if line["kind"] == "begin":
            transports = "+".join(line["transports"])
            session = Session(sid, f"room-{line['room']}", transports, line["at"])
            sessions[sid] = session
            for before in early.pop(sid, []):
                got(session, before)
        elif sid not in sessions:
            early[sid].append(line)
        elif line["kind"] == "got":
            got(sessions[sid], line)
        elif line["kind"] == "end":
            sessions[sid].ends = min(sessions[sid].ends, line["at"])
    return sessions


def read_emits(lines: Iterable[dict[str, Any]]) -> dict[str, list[Emit]]:
    """By stream, from what the workers have written."""
    begun: dict[str, dict[int, Emit]] = defaultdict(dict)
    for line in lines:
        if line["kind"] in ("begun", "done"):
            emit = Emit(
                line["number"],
                line["total"],
                line["at"],
                line["kind"] == "done",
                line.get("size", 0),
            )
            begun[line["stream"]][line["number"]] = emit
    return {stream: [emits[n] for n in sorted(emits)] for stream, emits in begun.items()}


def judge(
    sessions: dict[str, Session],
    streams: dict[str, list[Emit]],
    killed: dict[str, float],
    journal: Iterable[dict[str, Any]] = (),
) -> Verdict:
    """
    :param killed: when each process that was killed was, by the name in its streams.
    """
    verdict = Verdict(
        emitted=sum(map(len, streams.values())),
        sessions=len(sessions),
        lasted=sum(session.ends == float("inf") for session in sessions.values()),
    )
    for session in sessions.values():
        verdict.cut += session.cut
        verdict.delivered += sum(map(len, session.got.values()))
        for emitter, totals in session.order.items():
            for before, after in zip(totals, totals[1:]):
                if after < before:
                    verdict.disordered.append(f"{session.sid}: {emitter} {after} after {before}")
        for stream, emits in streams.items():
            if session.is_target(stream):
                _judge_stream(verdict, session, stream, emits, killed)
    _judge_questions(verdict, sessions, journal)
    return verdict


def _judge_stream(
    verdict: Verdict, session: Session, stream: str, emits: list[Emit], killed: dict[str, float]
) -> None:
    emitter = stream.partition(" ")[0]
    numbers = [number for number, _ in session.got.get(stream, ())]
    for number in (number for number, count in Counter(numbers).items() if count > 1):
        verdict.doubled.append(f"{session.sid} ({session.transports}): {stream} {number}")
    had = set(numbers)
    last = max(had, default=0)
    dies = killed.get(emitter, float("inf"))
    begin = bisect.bisect_left([emit.at for emit in emits], session.begins + ON_ITS_WAY)
    for emit in emits[begin:]:
        if emit.number in had:
            continue
        if session.ends != float("inf") and (
            emit.number > last or emit.at > session.ends - ON_ITS_WAY
        ):
            break
        key = (emitter, emit.total, session.tag)
        if not emit.done or emit.at > dies - BEFORE_KILL:
            verdict.allowed.add(key)
        else:
            verdict.missing.add(key)
            verdict.lost.append(
                f"{session.sid} ({session.transports}, {session.begins:.2f}–{session.ends:.2f}): "
                f"{stream} {emit.number} of {emit.size} bytes at {emit.at:.2f}"
            )


def _judge_questions(
    verdict: Verdict,
    sessions: dict[str, Session],
    journal: Iterable[dict[str, Any]],
) -> None:
    """Who has lasted longer than a question may take must have answered it."""
    for line in journal:
        verdict.asked += line["kind"] == "asks"
        session = sessions.get(line.get("sid", ""))
        if line["kind"] == "unanswered" and session is not None and session.ends > line["at"]:
            verdict.unanswered.append(f"{line['sid']}: {line['number']} at {line['at']:.2f}")
        if line["kind"] == "answered" and not line["right"]:
            verdict.unanswered.append(f"{line['sid']}: {line['number']} with something else")
