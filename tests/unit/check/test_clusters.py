"""Several clusters under one supervisord, as ``supervisor-sio check`` sees them."""

from __future__ import annotations

import pytest

from supervisor_sio.check import max_memory_of, paths_of, run
from unit.check.deployment import Deployment, host_with

CHAT = 'SUPERVISOR_SIO_CLUSTER="chat"'
SHOP = 'SUPERVISOR_SIO_CLUSTER="shop"'


@pytest.fixture
def two(deployment: Deployment) -> Deployment:
    """A sound configuration with the clusters chat and shop."""
    listener, program = (deployment.sections[n] for n in ("eventlistener:sio", "program:workers"))
    for name, environment in (("chat", CHAT), ("shop", SHOP)):
        more = {"environment": environment}
        (deployment.directory / f"{name}.py").touch()
        deployment.sections[f"rpcinterface:{name}"] = {
            **deployment.sections["rpcinterface:sio"],
            "listen": f"unix:{deployment.directory}/{name}.sock",
        }
        deployment.sections[f"eventlistener:{name}"] = {**listener, **more, "buffer_size": "100"}
        deployment.sections[f"program:{name}_workers"] = {
            **program,
            **more,
            "command": f"supervisor-sio worker {name}:app",
        }
    for section in ("rpcinterface:sio", "eventlistener:sio", "program:workers"):
        del deployment.sections[section]
    return deployment


def said(deployment: Deployment) -> list[str]:
    start = f": {deployment.path}: "
    return [line.replace(start, " ", 1) for line in deployment.lines()]


def test_two_clusters_are_sound(two: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    two.set("program:nginx", command="/bin/sh -c true")
    two.set("program:celery", command="/bin/sh -c true", environment=CHAT)
    two.set("rpcinterface:shop", path="/ws/")
    assert said(two) == []
    run(two.path)
    directory = two.directory
    assert capsys.readouterr().out.endswith(
        f"(chat: listen unix:{directory}/chat.sock, 1 router, workers: chat_workers × 2; "
        f"shop: listen unix:{directory}/shop.sock, 1 router, workers: shop_workers × 2)\n"
    )
    assert paths_of(two.path) == ("/socket.io/", "/ws/")


def test_the_memory_that_a_worker_of_any_may_have(two: Deployment) -> None:
    for name, size, most in (("chat", "300MB", None), ("shop", "200MB", 300 * 2**20)):
        assert two.set(f"rpcinterface:{name}", max_memory=size).lines() == []
        assert max_memory_of(two.path) == most
    assert max_memory_of(None) is None


def test_what_all_programs_have_from_supervisord_counts(two: Deployment) -> None:
    two.set("supervisord", environment=CHAT)
    two.set("eventlistener:chat", environment=None)
    two.set("program:chat_workers", environment='A="b"')
    assert said(two) == []


@pytest.mark.parametrize("section", ["eventlistener:shop", "program:shop_workers"])
@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        (None, "supervisord has the clusters chat and shop, and this program names none of them"),
        ('A="b"', "supervisord has the clusters chat and shop, and this program names none"),
        (
            'SUPERVISOR_SIO_CLUSTER="sohp"',
            "SUPERVISOR_SIO_CLUSTER: there is no cluster 'sohp', only chat and shop",
        ),
    ],
)
def test_a_program_in_no_cluster(
    two: Deployment, section: str, environment: str | None, reason: str
) -> None:
    (line,) = said(two.set(section, environment=environment))
    assert line.startswith(f"error [{section}] environment: {reason}")


def test_a_cluster_that_nobody_has(deployment: Deployment) -> None:
    """Also for a program that need not be in a cluster, and with a single cluster."""
    (line,) = said(deployment.set("program:cron", command="/bin/true", environment=SHOP))
    assert line == (
        "error [program:cron] environment: SUPERVISOR_SIO_CLUSTER: there is no cluster 'shop', "
        "only sio"
    )


@pytest.mark.parametrize(
    ("section", "line"),
    [
        (
            "eventlistener:shop",
            "error [eventlistener:shop]: missing: no section runs the router, so no "
            "connection is accepted; add it with command = supervisor-sio router and "
            f"events = PROCESS_STATE, and environment = {SHOP}",
        ),
        (
            "program:shop_workers",
            "error [program:shop_workers]: missing: no program runs a worker; add "
            "[program:shop_workers] with command = supervisor-sio worker module:app, and "
            f"environment = {SHOP}",
        ),
    ],
)
def test_what_one_of_them_lacks(two: Deployment, section: str, line: str) -> None:
    del two.sections[section]
    assert said(two) == [line]


def test_two_routers_of_one_cluster(two: Deployment) -> None:
    (line,) = said(two.set("eventlistener:shop", environment=CHAT))[:1]
    assert line.startswith("error [eventlistener:shop] command: a second router besides [eventlist")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"drain_timeout": "20"}, "warning [program:shop_workers] stopwaitsecs: 15 is not longer"),
        ({"listn": "x"}, "error [rpcinterface:shop] listn: unknown option; did you mean 'listen'?"),
        ({"tls_certfile": "/no/such"}, "error [rpcinterface:shop] tls_certfile: /no/such: no such"),
        ({"chmod": "0777"}, "warning [rpcinterface:shop] chmod: 0777 lets others replace"),
        (
            {"listen": "unix:{}/chat.sock"},
            "error [rpcinterface:shop] listen: unix:{}/chat.sock: [rpcinterface:chat] listen "
            "uses this path too; change one of them",
        ),
        ({"run_dir": "{}/run"}, "error [rpcinterface:shop] run_dir: cluster chat uses {}/run too;"),
        (
            {"message_queue": "unix://{}/r"},
            "error [rpcinterface:shop] channel: cluster chat uses 'socketio' on the same",
        ),
    ],
)
def test_a_mistake_is_told_of_the_cluster_that_has_it(
    two: Deployment, options: dict[str, str], line: str
) -> None:
    directory = str(two.directory)
    two.set("rpcinterface:chat", run_dir=f"{directory}/run", message_queue=f"unix://{directory}/r")
    two.set("rpcinterface:shop", **{n: v.replace("{}", directory) for n, v in options.items()})
    (found,) = said(two)
    assert found.startswith(line.replace("{}", directory))


def test_no_cluster_can_have_this_name(two: Deployment) -> None:
    lines = said(two.rename("rpcinterface:shop", "rpcinterface:my.shop"))
    assert any(
        line.startswith("error [rpcinterface:my.shop]: 'my.shop' is not a valid name of a cluster")
        for line in lines
    )


@pytest.mark.parametrize("included", [False, True])
def test_two_sections_of_one_name(two: Deployment, included: bool) -> None:
    """Supervisor merges them into one section silently."""
    chat = dict(two.sections["rpcinterface:chat"])
    more = two.include("rpcinterface:shop")
    two.sections["rpcinterface:chat"] = chat
    text = "[rpcinterface:chat]\n" + "".join(f"{name} = {chat[name]}\n" for name in chat)
    more.write_text(more.read_text() + text * (1 if included else 2))
    if not included:
        del two.sections["rpcinterface:chat"]
    (line,) = two.lines()
    assert "[rpcinterface:chat]: there are several sections of this name, and superv" in line


def test_router_events_are_those_of_all_programs(two: Deployment) -> None:
    two.set("eventlistener:shop", buffer_size="10")
    (line,) = said(two)
    # Two routers and four workers, two events of each.
    assert "but 12 occur when all processes start" in line


def test_as_root_in_each(two: Deployment) -> None:
    found = [f for f in two.judge(host_with(uid=0)) if "runs as root and reads input" in f.text]
    assert {finding.section for finding in found} == {
        *("eventlistener:chat", "eventlistener:shop"),
        *("program:chat_workers", "program:shop_workers"),
    }
    for finding in found:
        name = finding.section.partition(":")[2].partition("_")[0]
        assert f"in [rpcinterface:{name}]" in finding.text
