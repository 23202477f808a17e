"""Judges a recovery run, as takeover_oracle.py does a takeover run: workers were killed in it.

A client that has always recovered has each event once and in order. What nobody can have is what a
worker was killed with: the last of its own emits, events of clients that it had received, and their
acknowledgements. A handler that ran in that instant may have written its line, and no more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from takeover_oracle import Handled, Sent, expected

#: What must not be.
FAULTS = (
    "lost to clients",
    "doubled to clients",
    "out of order to clients",
    "doubled to servers",
    "out of order to servers",
    "never disconnected",
    "disconnected twice",
    "wrong sessions or answers",
)

_KINDS = {
    "lost": "lost to clients",
    "doubled": "doubled to clients",
    "disordered": "out of order to clients",
}

#: Seconds before a worker was killed in which its handlers may not have come to their end.
INSTANT = 0.5


@dataclass(frozen=True)
class Kill:
    """:ivar process: as the names of its files have it.
    :ivar at: when, by the monotonic clock.
    """

    process: str
    at: float


@dataclass
class Verdict:
    """:ivar came_back: how often clients that can recover have connected again.
    :ivar recovered: how often to their session.
    :ivar late: how often to a new session after their time was over.
    :ivar anew: how often others have connected again.
    :ivar cut_off: clients whose handler of ``connect`` or ``disconnect`` a kill has ended.
    :ivar with_workers: events of clients that were lost with the workers that had them.
    """

    faults: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    emitted: int = 0
    heard: int = 0
    sent: int = 0
    clients: int = 0
    came_back: int = 0
    recovered: int = 0
    late: int = 0
    anew: int = 0
    cut_off: int = 0
    with_workers: int = 0

    @property
    def right(self) -> bool:
        return not any(self.faults.values()) and self.heard > 0 and self.sent > 0

    @property
    def share(self) -> float:
        """The part of those who came back in time that recovered."""
        in_time = self.came_back - self.late
        return self.recovered / in_time if in_time else 1.0

    def fault(self, kind: str, text: str, times: int = 1) -> None:
        assert kind in FAULTS, kind
        self.faults[kind] += times
        self.examples.append(f"{kind}: {text}")


def judge(
    clients: Sequence[Mapping[str, Any]],
    sent: Mapping[str, Sent],
    handled: Handled,
    kills: Sequence[Kill],
    rooms: int,
    capable: int,
    recovery: float,
    threads: bool = False,
) -> Verdict:
    """
    :param clients: their reports; those whose key is a number have stayed.
    :param capable: those whose key is less may recover.
    :param recovery: seconds in which they may come back.
    """
    verdict = Verdict(emitted=sum(sum(emits.counts.values()) for emits in sent.values()))
    for text in handled.wrong:
        verdict.fault("wrong sessions or answers", text)
    killed = {kill.process for kill in kills}
    for client in clients:
        who = f"client {client['key']} ({client.get('sid')})"  # a visit may have had none
        for kind, times in client["faults"].items():
            if times:
                verdict.fault(_KINDS[kind], f"{who}: {client['examples'][:3]}", times)
        _judge_ups(verdict, client, handled, threads)
        if not client["key"].isdigit():
            continue
        again = client["connects"] - 1
        if int(client["key"]) < capable:
            verdict.came_back += again
            verdict.recovered += client["recovered"]
            verdict.late += sum(seconds > recovery for seconds in client["anew"])
        else:
            verdict.anew += again
        whole = client["recovered"] == again
        _judge_ends(verdict, client, sent, killed, rooms, whole)
    return verdict


def _judge_ups(
    verdict: Verdict, client: Mapping[str, Any], handled: Handled, threads: bool
) -> None:
    who = f"client {client['key']}"
    numbers = [number for _, number in sorted(handled.ups[client["key"]])]
    verdict.sent += client["sent"]
    verdict.with_workers += client["sent"] - len(set(numbers))
    if len(numbers) > len(set(numbers)):
        verdict.fault("doubled to servers", who, len(numbers) - len(set(numbers)))
    disordered = [(a, b) for a, b in zip(numbers, numbers[1:]) if b < a]
    if disordered and not threads:
        verdict.fault("out of order to servers", f"{who}: {disordered[:5]}", len(disordered))


def _judge_ends(
    verdict: Verdict,
    client: Mapping[str, Any],
    sent: Mapping[str, Sent],
    killed: set[str],
    rooms: int,
    whole: bool,
) -> None:
    """
    :param whole: it has had one session all the time. Else it has heard each stream from
        somewhere on, or nothing of it.
    """
    verdict.heard += sum(client["last"].values())
    who = f"client {client['key']}"
    must = expected(sent, client["sid"], f"room-{int(client['key']) % rooms}")
    for stream in must.keys() | client["last"].keys():
        emitter, _, target = stream.partition(" ")
        got, count = client["last"].get(stream, 0), must[stream]
        if got < count and emitter not in killed and (whole or stream in client["last"]):
            text = f"{who}: {stream} ends at {got}, not {count}"
            verdict.fault("lost to clients", text, count - got)
        elif got > count + (sent[emitter].unfinished == target if emitter in sent else 0):
            verdict.fault("doubled to clients", f"{who}: {stream} {got}, of {count}")


def balance(verdict: Verdict, handled: Handled, kills: Sequence[Kill]) -> None:
    """Each client that was connected was disconnected, once. All have left, and their time to come
    back is over."""
    ends = defaultdict(list)
    for kill in kills:
        ends[kill.process].append(kill.at)
    #: By session, the least time between a call of a handler and the end of its worker.
    before_kill: dict[str, float] = {}
    for sid, at, process in handled.calls:
        for end in ends[process]:
            if end >= at:
                before_kill[sid] = min(before_kill.get(sid, end - at), end - at)
    verdict.clients = len(handled.connects)
    for sid in handled.connects.keys() | handled.disconnects.keys():
        connects, reasons = handled.connects[sid], handled.disconnects.get(sid, [])
        if (connects, len(reasons)) == (1, 1):
            continue
        before = before_kill.get(sid)
        if before is not None and before < INSTANT and connects == 1:
            verdict.cut_off += 1
        elif not reasons:
            verdict.fault("never disconnected", f"{sid}, seconds before a kill: {before}")
        else:
            verdict.fault("disconnected twice", f"{sid}: {connects} connects, {reasons}")
