"""Strangers who do all that they can at once; tests/bench/strangers.py does so for longer."""

from __future__ import annotations

import random

import pytest
from cluster.conftest import ClusterFactory

from .strangers import attack_from_everywhere, describe

#: Many clients for a long time: not for every run of the tests.
pytestmark = pytest.mark.long


@pytest.mark.tries(3)
def test_others_do_not_notice(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=2).start()
    seed = random.randrange(2**32)
    damage = attack_from_everywhere(cluster, seed, 6)
    print(f"seed {seed}", describe(damage), sep="\n")
    assert not damage.failures and not damage.echo_error and damage.same
    assert damage.set_ups > 50
    # 100 ms on a machine that does nothing else, see the bench.
    assert damage.percentile(0.99) < 0.3
    assert damage.memory < 200e6
    # Packets that make handlers fail come by thousands. Each of two workers logs TRACEBACKS of
    # about 20 lines for each of three places in a minute, and else a line a second for a reason.
    assert damage.lines < 500
