"""What docs/design.md says of clusters that nobody has started follows from what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import scale_model
from scale_model import EXAMPLES, Cluster

from supervisor_sio.common.rundir import ClusterInfo

DOCUMENT = Path(__file__).parents[2] / "docs" / "design.md"
SECTION = DOCUMENT.read_text().partition("## What it costs, and what breaks first")[2]


@pytest.mark.parametrize("table", scale_model.TABLES, ids=lambda table: table.__name__)
def test_the_tables_are_those_of_the_model(table: object) -> None:
    assert callable(table) and f"\n\n{table()}\n" in SECTION


def test_one_host_by_hand() -> None:
    one = EXAMPLES[0]
    assert one.emits == 1000
    # An eighth of the emits is its own; it passes over the others, or has one in eight members.
    assert one.worker(False) == pytest.approx((20 + 64) / 8 + 7 / 8 * 72 + 10 / 8 * 11.7)
    assert one.relay(False) == pytest.approx(75 + 8 * 2.8)
    assert one.bridge(True) == one.redis(True) == one.wire == 0
    assert one.mib_of_worker == pytest.approx(50 + 1250 * 3 / 1024, abs=0.01)


def test_many_hosts_by_hand() -> None:
    many = EXAMPLES[2]
    assert many.emits == 100_000
    own = 1 / 3200
    worker = own * (20 + 13 + 10 * 3.5) + (1 - own) * 10
    assert many.worker(True) == pytest.approx(worker)
    assert many.bridge(True) == pytest.approx((38 + 17) / 100 + 0.99 * 38)
    assert many.redis(True) == pytest.approx(1.4 + 33)
    assert many.limits()["line of 1 Gbit/s"] == 125_000_000 / 40_000


def test_more_workers_do_not_take_more_emits() -> None:
    few, many = Cluster(1, 8, 10_000), Cluster(1, 32, 10_000)
    assert many.worker(False) > 0.8 * few.worker(False)  # and there are four times as many
    assert many.relay(False) > few.relay(False)


def test_ten_clusters_take_so_much_more_than_a_large_one() -> None:
    ten, large = (scale_model.first(one)[1] for one in EXAMPLES[1:])
    assert 10 * ten / large == pytest.approx(80, rel=0.03)
    assert "they can have eighty times as many emits" in SECTION.replace("\n", " ")


def test_figures_of_the_package() -> None:
    assert scale_model.KEPT_MIB == ClusterInfo().buffer_maxbytes / 2**20
    row = json.dumps(["0a1b2c3d", True, ["socketio"]]) + ", "
    assert abs(len(row) - scale_model.BEAT) <= 4


def test_how_figures_are_written() -> None:
    written = [scale_model.rough(number) for number in (0.756, 3.96, 27.4, 416, 3125, 25641)]
    assert written == ["0.76", "4", "27", "420", "3,100", "26,000"]
