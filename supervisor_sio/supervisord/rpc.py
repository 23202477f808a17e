"""The XML-RPC namespace of a cluster; ``sio`` for the default cluster.

The methods check arguments, call the cluster, and make the answers.
"""

from __future__ import annotations

import json
from typing import Any, Union

from supervisor.xmlrpc import Faults, RPCError

from ..common.channel import Message
from ..common.emission import RESERVED, RESERVED_EVENTS, unsendable
from ..common.limits import MAX_ROWS
from ..common.request import tag_of
from .cluster import Cluster
from .deferred import Rows, fault, written

API_VERSION = "1.0"

_NO_ARRAY = "data must be a string that holds a JSON array, such as '[\"hello\"]'"


class SioRPCInterface:
    """The XML-RPC namespace of a cluster, which has the name of its section, such as ``sio``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def getAPIVersion(self) -> str:
        """Return the version of this RPC interface

        @return string version  Version of the sio namespace.
        """
        return API_VERSION

    def getStatus(self) -> dict[str, Any]:
        """Return the state of the router, the relay and every worker

        Figures are at most a second old. Times are in seconds, memory in KiB.

        @return struct status  With listen, router, relay and workers.
        """
        return self._cluster.status()

    def drainWorker(self, name: str) -> Any:
        """Place no new sessions on a worker; its sessions stay

        Lasts until undrainWorker, or until the process ends.

        @param string name  The worker, as group:process.
        @return boolean result  Always True unless there is an error.
        """
        _check_strings(name=name)
        return self._cluster.command("drain", name=name)

    def undrainWorker(self, name: str) -> Any:
        """Place new sessions on a drained worker again

        @param string name  The worker, as group:process.
        @return boolean result  Always True unless there is an error.
        """
        _check_strings(name=name)
        return self._cluster.command("undrain", name=name)

    def scaleGroup(self, name: str, numprocs: Union[int, str]) -> dict[str, Any]:
        """Add processes to the group of a program, or return the surplus ones

        Missing processes are added at once, and started if autostart is true.
        Surplus processes keep running: drain and stop them, and call
        removeProcess for each.

        @param string name      The group.
        @param string numprocs  How many processes: N, +N, -N, or max for the
                                number of CPUs that supervisord may use.
        @return struct result   With group, numprocs, configured (numprocs in the
                                file), and lists of names: added, surplus (highest
                                number first), and kept, which an earlier call
                                returned as surplus.
        """
        _check_strings(name=name)
        if type(numprocs) not in (int, str):  # excludes bool
            raise RPCError(
                Faults.INCORRECT_PARAMETERS,
                "numprocs is not a number or a string: N, +N, -N or max",
            )
        return self._cluster.scale(name, numprocs)

    def removeProcess(self, name: str) -> Any:
        """Remove a process from its group, once it has stopped

        Only processes that scaleGroup returned as surplus, in that order.

        @param string name      The process, as group:process.
        @return boolean result  Always True unless there is an error.
        """
        _check_strings(name=name)
        return self._cluster.remove(name)

    def rebalance(self) -> Any:
        """Let workers with more clients than their share have some reconnect

        They go to the workers that have fewer, some a second. Returns when that
        has begun; getStatus says in rebalancing how far it is, and its result.

        @return boolean result  Always True unless there is an error.
        """
        return self._cluster.command("rebalance")

    def stopRebalance(self) -> Any:
        """Let no more clients reconnect

        @return boolean result  Always True unless there is an error.
        """
        return self._cluster.command("stop-rebalance")

    def reloadTLS(self) -> Any:
        """Read tls_certfile and tls_keyfile again, for new connections

        @return boolean result  Always True unless there is an error.
        """
        return self._cluster.command("reload-tls")

    def emit(self, event: str, data: str = "[]", room: str = "", namespace: str = "/") -> Any:
        """Emit an event to the clients of all workers

        @param string event      The name of the event.
        @param string data       Its arguments, a JSON array; up to 60,000 bytes.
        @param string room       A room or a sid; empty for all in the namespace.
        @param string namespace  The namespace.
        @return boolean result   Always True unless there is an error.
        """
        try:
            arguments = json.loads(data)
        except TypeError:
            raise RPCError(Faults.INCORRECT_PARAMETERS, _NO_ARRAY) from None
        except (ValueError, RecursionError) as error:
            raise RPCError(Faults.INCORRECT_PARAMETERS, f"data is not JSON: {error}") from None
        if not isinstance(arguments, list):
            raise RPCError(Faults.INCORRECT_PARAMETERS, _NO_ARRAY)
        reason = unsendable(arguments)
        if reason is not None:
            raise RPCError(Faults.INCORRECT_PARAMETERS, f"data cannot be sent: {reason}")
        _check_strings(event=event, room=room, namespace=namespace)
        if event in RESERVED_EVENTS:
            raise RPCError(Faults.INCORRECT_PARAMETERS, f"{event} cannot be emitted: {RESERVED}")
        return self._cluster.command(
            "emit", event=event, arguments=arguments, room=room, namespace=namespace
        )

    def getSockets(self, room: str = "", namespace: str = "/", limit: int = 1000) -> Any:
        """Return the clients of all workers of this host

        @param string room       Only those in this room; empty for all.
        @param string namespace  The namespace.
        @param int limit         How many at most; up to 10,000.
        @return struct result    With sockets, an array of structs with sid, namespace,
                                 rooms, worker, transport and address; total, how many
                                 there are; missing, how many workers did not answer.
        """
        _check_strings(room=room, namespace=namespace)
        if type(limit) is not int or not 0 <= limit <= MAX_ROWS:
            raise RPCError(Faults.INCORRECT_PARAMETERS, f"limit is a number from 0 to {MAX_ROWS}")

        def write(row: Any) -> str:
            worker, (sid, rooms, transport, address) = row
            return written(
                {
                    "sid": sid,
                    "namespace": namespace,
                    "rooms": rooms,
                    "worker": worker,
                    "transport": transport,
                    "address": address,
                }
            )

        def finish(rows: list[str], answer: Message) -> dict[str, Any]:
            return {
                "sockets": Rows(rows),
                "total": answer["total"],
                "missing": answer["missing"],
            }

        return self._cluster.query(
            finish, write, what="sockets", room=room, namespace=namespace, limit=limit
        )

    def getRooms(self, namespace: str = "/") -> Any:
        """Return the rooms of all workers of this host, the largest first

        @param string namespace  The namespace.
        @return struct result    With rooms, an array of up to 10,000 structs with room and
                                 sockets; total, how many there are, at least; missing,
                                 how many workers did not answer.
        """
        _check_strings(namespace=namespace)

        def write(row: Any) -> str:
            room, size = row
            return written({"room": room, "sockets": size})

        def finish(rows: list[str], answer: Message) -> dict[str, Any]:
            return {"rooms": Rows(rows), "total": answer["total"], "missing": answer["missing"]}

        return self._cluster.query(finish, write, what="rooms", namespace=namespace, limit=MAX_ROWS)

    def kick(self, sid: str, namespace: str = "/") -> Any:
        """Disconnect a client from a namespace

        @param string sid        The client, as getSockets names it.
        @param string namespace  The namespace.
        @return boolean result   Always True unless there is an error.
        """
        _check_strings(sid=sid, namespace=namespace)
        unknown = fault(Faults.FAILED, f"no client {sid} in namespace {namespace}")
        tag = tag_of(sid)
        if not tag:
            raise unknown

        def finish(rows: list[Any], answer: Message) -> bool:
            if rows:
                return True
            if answer["missing"]:
                raise RPCError(Faults.FAILED, "its worker does not answer")
            raise unknown

        return self._cluster.query(
            finish, what="kick", sid=sid, namespace=namespace, tag=tag, limit=1
        )


def _check_strings(**arguments: Any) -> None:
    for name, value in arguments.items():
        if not isinstance(value, str):
            raise RPCError(Faults.INCORRECT_PARAMETERS, f"{name} is not a string")
