"""A plugin of supervisord that makes ours fail in each call that supervisord makes."""

from __future__ import annotations

from typing import Any

from supervisor_sio.supervisord import cluster
from supervisor_sio.supervisord.cluster import Cluster
from supervisor_sio.supervisord.dispatchers import RouterChannel


class Fault(Exception):
    pass


def _raise(*_: Any) -> Any:
    raise Fault


def _fail_first(times: int, owner: Any, name: str) -> None:
    """Calls of ``owner.name`` fail so many times, then they work."""
    works, left = getattr(owner, name), [times]

    def call(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise Fault
        return works(*arguments)

    setattr(owner, name, call)


def make_rpcinterface(supervisord: Any) -> object:
    for name in ("_on_running", "_on_stopping"):
        setattr(Cluster, name, _raise)
    _fail_first(1, Cluster, "_refuse_process")
    _fail_first(2, RouterChannel, "_forget_answers")
    _fail_first(1, cluster, "in_ascii")
    return object()
