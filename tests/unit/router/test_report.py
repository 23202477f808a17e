from __future__ import annotations

import logging
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

from supervisor_sio._version import __version__
from supervisor_sio.common import reasons
from supervisor_sio.common.refusals import Refusals
from supervisor_sio.router.pool import Member, Pool
from supervisor_sio.router.report import Report
from supervisor_sio.router.run_once import Row

ROW = Row("ticker", "running", "aa", 7, 60, 0, 0, 1, 0)


def report_of(
    *members: Member, refusals: Counter[str], gone: Counter[str], held: int = 0
) -> Report:
    pool = Pool("round-robin")
    for member in members:
        pool.add(member)
    counted = Refusals(logging.getLogger("supervisor_sio.router"))
    counted.by_reason.update(refusals)
    workers: Any = SimpleNamespace(
        handed_over=1,
        handed_back=2,
        gone=gone,
        held_sessions=lambda: held,
        run_once=SimpleNamespace(rows=lambda: [ROW]),
    )
    relay: Any = SimpleNamespace(alive=True, received=lambda: 3)
    return Report(
        pool=pool,
        workers=workers,
        relay=relay,
        refusals=counted,
        waiting=lambda: 0,
        queue=dict,
        faults=[],
        recycled={"memory": 2},
        rebalancing=lambda: {"state": "idle"},
    )


def test_clients_and_sessions_are_counted_apart() -> None:
    """In the router, in connected workers, and in workers that have left."""
    data, pid = (reasons.TABLE[one].figure for one in (reasons.SESSION_DATA, reasons.UNKNOWN_PID))
    one = Member("aa", "w:w_0", 1, "1.2", ready=True, takes=1, recovers=1)
    one.figures = {"no_descriptor": 1, data: 2, "taken_over": 7, "passed_on": 1}
    one.figures.update({pid: 3, "recovered": 9, "lost": 4, "kept_bytes": 1000})
    report = report_of(
        one,
        Member("bb", "w:w_1", 2, ready=True),
        refusals=Counter({reasons.GARBAGE: 1, reasons.NOT_ADOPTED: 4, reasons.NO_DESCRIPTOR: 1}),
        gone=Counter(
            {
                data: 10,
                "taken_over": 20,
                "passed_on": 30,
                "no_descriptor": 5,
                pid: 1,
                "recovered": 2,
            }
        ),
        held=6,
    )
    totals = report.totals()
    assert totals["refused"] == {reasons.GARBAGE: 1, reasons.NO_DESCRIPTOR: 7}
    assert totals["not_moved"] == {reasons.NOT_ADOPTED: 4, reasons.SESSION_DATA: 12}
    assert (totals["taken_over"], totals["passed_on"], totals["held"]) == (27, 31, 6)
    assert totals["takes"] is True
    assert [row["takes"] for row in report.rows()] == [1, 0]
    assert totals["version"] == __version__
    assert [row["version"] for row in report.rows()] == ["1.2", ""]
    snapshot = report.snapshot()
    assert snapshot.not_moved == totals["not_moved"] and snapshot.refused == totals["refused"]
    assert (snapshot.passed_on, snapshot.held) == (31, 6)
    assert totals["not_recovered"] == snapshot.not_recovered == {reasons.UNKNOWN_PID: 4}
    assert (totals["recovered"], totals["lost"], totals["kept_bytes"]) == (11, 4, 1000)
    assert totals["tasks"] == [ROW._asdict()] and snapshot.tasks == (ROW,)
    assert totals["recovers"] is True and snapshot.recycled == {"memory": 2}
    assert 0 <= time.monotonic() - totals["at"] < 60
    assert [row["recovers"] for row in report.rows()] == [1, 0]


def test_nothing_of_takeover_and_recovery_where_there_is_none() -> None:
    report = report_of(Member("aa", "w:w_0", 1, ready=True), refusals=Counter(), gone=Counter())
    totals = report.totals()
    assert (totals["takes"], totals["held"], totals["not_moved"]) == (False, 0, {})
    assert (totals["recovers"], totals["lost"], totals["not_recovered"]) == (False, 0, {})
