from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor_sio.common.channel import encode
from supervisor_sio.common.event_figures import EventRow, message, read
from supervisor_sio.common.figures import MOST
from supervisor_sio.common.limits import EVENT_METRICS, EVENT_METRICS_TEXT, MAX_PACKET

ROW = ["/", "echo", 1, 2, 3]


def test_what_is_written_is_read() -> None:
    longest = "ä" * ((EVENT_METRICS_TEXT - 2) // 6)
    assert len(json.dumps(longest)) == EVENT_METRICS_TEXT
    rows = [EventRow(longest, f"{n:0{len(longest)}}", MOST, MOST, MOST) for n in range(101)]
    assert len(rows) == EVENT_METRICS + 1
    data = encode(message([row._replace(event=row.event[:-3] + "ä" * 3) for row in rows]))
    assert len(data) < MAX_PACKET
    assert read(json.loads(encode(message(rows)))) == rows


@pytest.mark.parametrize(
    "rows",
    [
        None,
        "rows",
        [ROW] * 2,
        [["/", str(n), 1, 2, 3] for n in range(EVENT_METRICS + 2)],
        [ROW[:4]],
        [[*ROW, 4]],
        [["/", "x" * (EVENT_METRICS_TEXT + 1), 1, 2, 3]],
        [["/", 5, 1, 2, 3]],
        [["/", "echo", -1, 2, 3]],
        [["/", "echo", 1, True, 3]],
        [["/", "echo", 1, 2, MOST + 1]],
        [["/", "echo", 1, 2, 0.5]],
        [None],
    ],
)
def test_what_a_worker_does_not_say(rows: Any) -> None:
    with pytest.raises(ValueError):
        read({"rows": rows})
