"""The state of one client of a Socket.IO server as JSON, for the process that takes it over.

It has what python-socketio and the managers know of the client: its namespaces with sids and rooms,
the session data, the environment of its handshake, and the acknowledgements that other processes
wait for. The Engine.IO session and the connections are moved separately.

Everything is called in the worker's loop, while no handler of the client runs.
"""

from __future__ import annotations

import logging
from typing import Any

from ..common.blocking import run_blocking, settle
from ..common.limits import CLIENT_STATE, MOST_TOLD_OF
from ..common.not_movable import NotMovable
from ..common.reasons import HANDLER_RUNNING, SESSION_DATA, STATE_TOO_LONG
from ..engine.saved import Saved
from . import admin, environs
from .acks import Asked
from .plain import NotPlain, TooLong, Writer, read

logger = logging.getLogger("supervisor_sio")

#: What cannot be moved, as logged in this process: each detail is logged once.
_told: set[str] = set()


def is_settled(server: Any, eio_sid: str) -> bool:
    """Whether no namespace of a client is just connecting or disconnecting, and everything emitted
    to it while it connected has been queued."""
    manager = server.manager
    with manager._tables:
        return not any(
            sid in manager._early
            or sid in manager.pending_connect[namespace]
            or sid in manager.pending_disconnect[namespace]
            for namespace, sid in _namespaces(manager, eio_sid)
        )


def save_client(server: Any, eio_sid: str, data: Any) -> dict[str, Any]:
    """The state of a client, as JSON takes it. Nothing is changed.

    :param data: the Engine.IO session's: what the application has stored, by namespace, or
        ``None``.
    :raises NotMovable: when the client cannot be moved; its detail says why.
    """
    if not is_settled(server, eio_sid) or eio_sid not in server.environ:
        raise NotMovable(HANDLER_RUNNING, "a handler of connect or disconnect")
    writer = Writer(CLIENT_STATE)
    return {
        "environ": _save_environ(server.environ[eio_sid], writer),
        "data": None if data is None else _save_data(data, writer),
        "namespaces": _save_namespaces(server.manager, eio_sid),
    }


def remove_client(server: Any, eio_sid: str) -> None:
    """Forget a client that another process has taken over; no handler is called."""
    manager = server.manager
    left = []
    with manager._tables:
        for namespace, sid in _namespaces(manager, eio_sid):
            manager.forget_recovery(sid)
            manager._take_out(sid, namespace)
            left += manager._awaited.left(sid, moved=True)
            admin.connected_at(manager).pop(sid, None)
    server.environ.pop(eio_sid, None)
    for no_answer in left:
        no_answer()


def restore_client(server: Any, eio_sid: str, state: Any) -> None:
    """Add a client of another process; no handler is called.

    Its Engine.IO session has been restored before.

    :param state: a result of :func:`save_client`.
    :raises ValueError: when it is not, or the client cannot be added; nothing has changed then.
    """
    saved = Saved(state, "client")
    environ = environs.restore(saved.object("environ"))
    data = None if saved.is_none("data") else _restore_data(saved.object("data"))
    manager = server.manager
    if eio_sid in server.environ:
        raise ValueError(f"this worker has {eio_sid} already")
    try:
        with manager._tables:
            for namespace in saved.objects("namespaces"):
                _restore_namespace(manager, eio_sid, namespace)
    except ValueError:
        remove_client(server, eio_sid)
        raise
    server.environ[eio_sid] = environ
    if data is not None:
        run_blocking(settle(server.eio.save_session(eio_sid, data)))  # does not wait


def has_on_takeover(server: Any) -> bool:
    """Whether :func:`run_on_takeover` has anything to call."""
    return bool(server.manager.has_on_takeover)


async def run_on_takeover(server: Any, eio_sid: str) -> None:
    """Call the application's handlers for a restored client; raises nothing."""
    manager = server.manager
    with manager._tables:
        namespaces = list(_namespaces(manager, eio_sid))
    for namespace, sid in namespaces:
        await manager.run_on_takeover(sid, namespace, server.environ.get(eio_sid))


def _namespaces(manager: Any, eio_sid: str) -> list[tuple[str, str]]:
    """The namespaces of a client, and its sid in each."""
    found = [
        (namespace, manager.sid_from_eio_sid(eio_sid, namespace)) for namespace in manager.rooms
    ]
    return [(namespace, sid) for namespace, sid in found if sid is not None]


# --- its parts -----------------------------------------------------------------------


def _save_environ(environ: dict[str, Any], writer: Writer) -> dict[str, Any]:
    try:
        return environs.save(environ, writer)
    except (NotPlain, TooLong) as error:
        remedy = "delete it in the connect handler, if no other handler needs it"
        raise _not_movable("environ", error, remedy) from None


def _save_data(data: Any, writer: Writer) -> dict[str, Any]:
    """What the application has stored for each namespace."""
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        # What was stored in the Engine.IO session itself may have any type.
        error = NotPlain("eio", "not a dictionary by namespace")
        raise _not_movable("session data", error, "store it with the Socket.IO server")
    saved = {}
    for namespace, session in data.items():
        what = "session data" if namespace == "/" else f"session data in {namespace}"
        try:
            saved[namespace] = writer.write(session)
        except (NotPlain, TooLong) as error:
            raise _not_movable(what, error, "store JSON values only") from None
    return saved


def _restore_data(saved: Saved) -> dict[str, Any]:
    return {namespace: read(session) for namespace, session in saved.pairs()}


def _save_namespaces(manager: Any, eio_sid: str) -> list[dict[str, Any]]:
    with manager._tables:
        return [
            {
                "namespace": namespace,
                "sid": sid,
                "rooms": manager.get_rooms(sid, namespace),
                "recovery": manager.save_recovery(sid),
                "connected_at": admin.connected_at(manager).get(sid),
                "asked": [
                    [number, seconds, *asked]
                    for number, seconds, asked in manager._awaited.asked_by_others(sid)
                ],
            }
            for namespace, sid in _namespaces(manager, eio_sid)
        ]


def _restore_namespace(manager: Any, eio_sid: str, saved: Saved) -> None:
    namespace, sid = saved.text("namespace"), saved.text("sid")
    manager._take_in(sid, eio_sid, namespace, [room for _, room in saved.list("rooms").pairs()])
    if not saved.is_none("recovery"):
        manager.restore_recovery(saved.object("recovery"), eio_sid)
    if not saved.is_none("connected_at"):
        admin.connected_at(manager)[sid] = saved.seconds("connected_at")
    for one in saved.items("asked"):
        request = None if one.is_none(4) else one.integer(4)
        asked = Asked(one.text(2), one.text(3), request, one.text(5))
        question = manager._question(one.integer(0), asked, one.seconds(1))
        manager._awaited.ask([sid], question)


def _not_movable(what: str, error: ValueError, remedy: str) -> NotMovable:
    """The error for what cannot be moved; it is logged once."""
    if isinstance(error, NotPlain):
        reason = SESSION_DATA
        detail = f"{what} `{error.path}` is {error.what}, which is not JSON: {remedy}"
    else:
        reason = STATE_TOO_LONG
        detail = f"{what}: {error}, of {CLIENT_STATE:,} characters in all"
    if detail not in _told and len(_told) < MOST_TOLD_OF:
        _told.add(detail)
        logger.warning("a client cannot be moved to another worker: %s", detail)
    return NotMovable(reason, detail)
