from __future__ import annotations

import io
import json
from typing import Any, Optional

import pytest
from supervisor.compat import xmlrpclib
from supervisor.xmlrpc import Faults

from supervisor_sio.supervisorctl.commands import matching, run
from supervisor_sio.supervisorctl.session import CommandError

NAME = "workers:workers_00"


class Supervisorctl:
    """A supervisorctl and its supervisord, with one worker that does not become ready."""

    def __init__(self, fault: Optional[str] = None, state: str = "exited", **info: Any) -> None:
        self.stdout, self.exitstatus, self.printed = io.StringIO(), 0, ""
        self.options = self
        self.serverurl = "http://localhost"
        self.fault, self.state = fault, "ready"
        self.afterwards = state
        self.info = {"exitstatus": 0, "spawnerr": "", "state": 0, **info}

    def output(self, line: str) -> None:
        self.printed = line  # the last one

    def get_server_proxy(self, namespace: str) -> Supervisorctl:
        return self

    def getStatus(self) -> dict[str, Any]:
        worker = {"name": NAME, "state": self.state, "pid": 7, "tail": f"{NAME} stderr"}
        return {"workers": [worker], "router": {"process": "sio"}}

    def stopProcess(self, name: str, wait: bool) -> None:
        self.state = self.afterwards

    def startProcess(self, name: str) -> None:
        if self.fault is not None:
            raise xmlrpclib.Fault(getattr(Faults, self.fault), f"{self.fault}: {name}")

    def getProcessInfo(self, name: str) -> dict[str, Any]:
        return self.info


@pytest.mark.parametrize(
    ("fault", "state", "info", "fate"),
    [
        ("SPAWN_ERROR", "fatal", {"spawnerr": "Exited too quickly (process log …)"}, "it ended"),
        (
            "ABNORMAL_TERMINATION",
            "exited",
            {"exitstatus": -1, "spawnerr": "Bad exit code -1"},
            "it ended",
        ),
        ("SPAWN_ERROR", "fatal", {"spawnerr": "can't find command 'x'"}, "can't find command 'x'"),
        ("ABNORMAL_TERMINATION", "exited", {"exitstatus": 1}, "it ended with exit status 1"),
        ("NO_FILE", "stopped", {"spawnerr": "of an earlier time"}, "no file"),
        (
            None,
            "exited",
            {"exitstatus": 3, "spawnerr": "Bad exit code 3"},
            "it ended with exit status 3",
        ),
        (None, "exited", {"exitstatus": -1}, "it ended"),
        (None, "failing", {}, "it ended"),
        (None, "stopped", {}, "it was stopped"),
    ],
)
def test_a_worker_that_does_not_come_back(
    fault: Optional[str], state: str, info: dict[str, Any], fate: str
) -> None:
    ctl = Supervisorctl(fault, state, **info)
    run(ctl, f"reload {NAME}")
    assert ctl.printed == (
        f"{NAME}: ERROR (the new process is not ready: {fate}); the other workers keep serving, "
        f"see: supervisorctl tail {NAME} stderr"
    )
    assert ctl.exitstatus == 1


@pytest.mark.parametrize("command", ["reload", "drain", "undrain"])
def test_the_router_is_no_worker(command: str) -> None:
    ctl = Supervisorctl()
    run(ctl, f"{command} sio")
    assert (ctl.printed, ctl.exitstatus) == (
        "sio: ERROR (it is the router; restart it with: supervisorctl restart sio)",
        1,
    )


class OfTwoClusters(Supervisorctl):
    """A supervisord with the clusters chat and shop."""

    def __init__(self) -> None:
        super().__init__()
        self.clusters = ["chat", "shop"]

    def get_server_proxy(self, namespace: str) -> Any:
        return Namespace(self, namespace)


class Namespace:
    """The XML-RPC methods of one name."""

    def __init__(self, ctl: OfTwoClusters, name: str) -> None:
        self.ctl, self.name = ctl, name

    def __getattr__(self, method: str) -> Any:
        if self.name == "system":
            return lambda: [
                "system.listMethods",
                *[
                    f"{name}.{method}"
                    for name in self.ctl.clusters
                    for method in ("x", "undrainWorker")
                ],
            ]
        if self.name not in self.ctl.clusters:
            raise xmlrpclib.Fault(Faults.UNKNOWN_METHOD, "UNKNOWN_METHOD")
        return getattr(self.ctl, method)


@pytest.mark.parametrize(("typed", "asked"), [("status", "sio"), ("--cluster caht reload", "caht")])
def test_a_cluster_that_nobody_has(typed: str, asked: str) -> None:
    ctl = OfTwoClusters()
    run(ctl, typed)
    assert (ctl.printed, ctl.exitstatus) == (
        f"Error: supervisord has no cluster {asked}, only chat and shop; write: supervisorctl sio "
        "--cluster chat",
        2,
    )
    ctl.clusters = []
    run(ctl, typed)
    assert ctl.printed.startswith("supervisord runs without the sio plugin")


def test_a_cluster_of_another_name_is_asked() -> None:
    ctl = OfTwoClusters()
    run(ctl, "--cluster shop drain other")
    assert ctl.printed == "other: ERROR (no such worker)"


WORKERS = ["chat:chat_00", "chat:chat_01", "chat2", "chat3:a"]


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        ([], WORKERS),
        (["all"], WORKERS),
        (["chat2", "all"], WORKERS),
        (["chat:chat_01"], ["chat:chat_01"]),
        (["chat"], ["chat:chat_00", "chat:chat_01"]),
        (["chat:*"], ["chat:chat_00", "chat:chat_01"]),
        (["chat2"], ["chat2"]),
        (["chat2:*"], ["chat2"]),
        (["chat3", "chat:chat_01", "chat"], ["chat3:a", "chat:chat_01", "chat:chat_00"]),
    ],
)
def test_the_workers_that_names_mean(names: list[str], meant: list[str]) -> None:
    assert matching(WORKERS, names) == meant


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("chat_00", ", did you mean chat:chat_00?"),
        ("chat:chat_0", ", did you mean chat:chat_01?"),
        ("cha", ", did you mean chat2?"),
        ("chat:", ", did you mean chat3:a?"),
        ("nobody", ""),
        ("*", ""),
    ],
)
def test_no_such_worker(name: str, hint: str) -> None:
    with pytest.raises(CommandError) as caught:
        matching(WORKERS, ["chat2", name])
    assert str(caught.value) == f"{name}: ERROR (no such worker{hint})"


@pytest.mark.parametrize(
    ("answer", "said", "counted"),
    [
        ({"total": 12, "missing": 0}, "news: emitted (12 clients)", (12, 0)),
        ({"total": 1, "missing": 0}, "news: emitted (1 client)", (1, 0)),
        (
            {"total": 0, "missing": 2},
            "news: emitted (0 clients, 2 workers did not answer)",
            (0, 2),
        ),
        (None, "news: emitted", (None, 0)),  # it was emitted all the same
    ],
)
def test_how_many_an_emit_reaches(
    answer: Optional[dict[str, int]], said: str, counted: tuple[Optional[int], int]
) -> None:
    ctl = Supervisorctl()
    asked: list[tuple[Any, ...]] = []

    def get_sockets(*arguments: Any) -> dict[str, int]:
        asked.append(arguments)
        if answer is None:
            raise xmlrpclib.Fault(Faults.FAILED, "FAILED: no router is running")
        return answer

    ctl.emit = lambda *arguments: asked.append(arguments)  # type: ignore[attr-defined]
    ctl.getSockets = get_sockets  # type: ignore[attr-defined]
    run(ctl, "emit news 1 --room red --namespace /chat")
    assert (ctl.printed, ctl.exitstatus) == (said, 0)
    assert asked == [("news", "[1]", "red", "/chat"), ("red", "/chat", 0)]
    run(ctl, "emit news --json")
    document = json.loads(ctl.printed)
    assert document["ok"] and (document["clients"], document["missing"]) == counted
