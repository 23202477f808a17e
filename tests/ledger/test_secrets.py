"""The URL of message_queue, and what else has a password in it, is printed nowhere."""

from __future__ import annotations

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster, free_port, wait_until
from cluster.modes import NO_WORKER
from cluster.test_check import check

pytestmark = NO_WORKER

#: In the environment of supervisord, which its expansion of a percent sign takes in whole.
CANARY = "c4nary-of-the-environment"


def make(make_cluster: ClusterFactory, url: str) -> Cluster:
    hidden = f"redis://me:s3cr%40t@127.0.0.1:{free_port()}"
    return make_cluster(
        workers=1,
        startsecs=1,
        message_queue=url,
        wrapper=["env", f"CANARY={CANARY}", f"REDIS_URL={hidden}"],
    )


@pytest.mark.parametrize("url", ["redis://:%40s3cr@127.0.0.1", "redis://:s3cr%40rt@127.0.0.1"])
def test_a_percent_sign_that_takes_the_environment_in(
    make_cluster: ClusterFactory, url: str
) -> None:
    cluster = make(make_cluster, url)
    code, said = check(cluster)
    assert code == 1
    reason = (
        "[rpcinterface:sio] message_queue: supervisord has inserted its environment; "
        "write a percent sign as %%, as in %%40 for @\n"
    )
    assert reason in said
    code, printed = cluster.run_to_its_end()
    assert code == 2 and f"Error: {reason}" in printed
    for text in (said, *cluster.logs().values()):
        assert CANARY not in text and "s3cr" not in text


@pytest.mark.parametrize("url", ["%(ENV_REDIS_URL)s", "redis://me:s3cr%%40t@127.0.0.1:{port}"])
def test_a_password_is_shown_nowhere(make_cluster: ClusterFactory, url: str) -> None:
    cluster = make(make_cluster, url.replace("{port}", str(free_port())))
    cluster.settings["metrics"] = f"127.0.0.1:{free_port()}"
    cluster.start()
    wait_until(lambda: "redis://127.0.0.1:" in cluster.log("router"), 20, "a line about it")
    shown = [cluster.ctl("sio", *words).stdout for words in (["status"], ["status", "--json"])]
    assert all("redis://127.0.0.1:" in text for text in shown)
    cluster.stop()
    for text in (*shown, *cluster.logs().values()):
        assert "s3cr" not in text and CANARY not in text
