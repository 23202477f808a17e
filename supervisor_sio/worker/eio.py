"""What python-socketio finds on ``server.eio``: engineio's interface, over our engine.

A ``socketio.Server`` makes an ``engineio.Server`` and registers its handlers with it. Where a
worker serves, that object becomes an :class:`EngineServer`: the same options and the same
public methods, while :mod:`supervisor_sio.engine` has the sessions. Requests of sessions
come from the connections straight to the engine; a handshake comes through the application,
which may look at it, wrap it, or refuse it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Callable, Optional, Union

import engineio
from engineio import packet

from ..cluster.sessions import traffic
from ..common.limits import SLOW_OUTPUT
from ..engine.engine import Engine
from ..engine.options import Options
from ..engine.session import Session
from .refused import refusals
from .runtime import Runtime

#: In the environment of a request: who answers it when the engine does.
EXCHANGE = "supervisor_sio.exchange"


class EngineServer(engineio.Server):  # type: ignore[misc]
    """An Engine.IO server whose clients are served by the worker itself; owns the engine."""

    engine: Engine
    runtime: Runtime

    def start(self, runtime: Runtime) -> None:
        """Serve the clients from here on; the options are those of engineio.

        :raises ValueError: for an option that cannot be, by its name.
        """
        self.runtime = runtime
        self.engine = Engine(Options.of(self), self, runtime.deadlines, self.new_sid, runtime.date)
        # Also those whose disconnect handlers are running, as it is with engineio.
        self.sockets = self.engine.sessions
        #: Called with a session that has ended, in the loop.
        self.ended: Callable[[Session], None] = lambda session: None
        #: Sessions with a message that is being handled; true for those that wait for its end.
        self._busy: dict[Session, bool] = {}
        #: Why sessions have ended that are busy yet.
        self._reasons: dict[Session, str] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        """engineio's options may be set while it runs.

        :raises ValueError: for a value that cannot be; the option stays as it was.
        """
        if name in Options.__dataclass_fields__ and "engine" in vars(self):
            self.engine.configure(replace(self.engine.options, **{name: value}))
        super().__setattr__(name, value)

    def new_sid(self) -> str:
        """An id for a session, which names this worker."""
        return str(self.generate_id())

    # --- requests -----------------------------------------------------------------

    def handle_request(self, environ: dict[str, Any], start_response: Any) -> Any:
        """A request that the application has passed on: nearly always a handshake."""
        taken = environ.get(EXCHANGE)
        if taken is None:
            raise RuntimeError(
                "a Socket.IO server of a supervisor-sio worker cannot be called by another "
                "WSGI server"
            )
        request, exchange = taken.take()
        engine = self.engine
        engine.add_path(request.head.path)
        refusal = engine.check(request)
        if refusal is not None:
            exchange.answer(refusal)
        elif request.sid:
            self._handle_late(request, exchange, environ)
        else:
            self._open(request, exchange, environ)
        return ()

    def _handle_late(self, request: Any, exchange: Any, environ: dict[str, Any]) -> None:
        """A request of a session that went through the application all the same.

        Its path was not known to be the engine's, or a function of the application had to say
        whether its origin is accepted.
        """
        body = None
        if request.head.method == "POST":
            most = self.engine.body_limit(request)
            if isinstance(most, bytes):
                exchange.answer(most)
                return
            body = environ["wsgi.input"].read(most + 1)
            if len(body) > most:
                self.runtime.call_soon(self.engine.refuse_body, request, exchange)
                return
        self.runtime.call_soon(self._handle, request, exchange, body)

    def _handle(self, request: Any, exchange: Any, body: Optional[bytes]) -> None:
        self.engine.handle(request, exchange, body)
        if exchange.ended:
            self.engine.gone(exchange)

    def _open(self, request: Any, exchange: Any, environ: dict[str, Any]) -> None:
        session = self.engine.open(request)
        try:
            answer = self.handlers["connect"](session.sid, environ)
        except Exception:
            self.logger.exception("connect handler error")
            answer = False
        except BaseException:  # an application's eventlet.Timeout is not an Exception
            self.engine.refuse(session, request, exchange, None)
            raise
        if answer is None or answer is True:
            traffic.opened += 1
            self.engine.accept(session, request, exchange)
        else:
            self.logger.warning("Application rejected connection")
            self.engine.refuse(session, request, exchange, answer or None)

    # --- what the engine tells its owner ------------------------------------------------

    def on_message(self, session: Session, data: Union[str, bytes]) -> bool:
        """:meth:`.Owner.on_message`; a :class:`.Dispatcher` puts its own in this place."""
        traffic.received += 1
        return self.run_alone(session, self.handlers["message"], session.sid, data)

    def on_close(self, session: Session, reason: str) -> None:
        """:meth:`.Owner.on_close`"""
        self.ended(session)
        if session in self._busy:
            self._reasons[session] = reason
        else:
            self.runtime.soon(self._disconnect, session, reason)

    def on_upgrade(self, session: Session) -> None:
        """:meth:`.Owner.on_upgrade`"""
        if self.logger.isEnabledFor(logging.INFO):
            self.runtime.run(self.logger.info, "%s: Upgrade to websocket successful", session.sid)

    def on_refusal(self, kind: str, message: str) -> None:
        """:meth:`.Owner.on_refusal`"""
        if kind not in self.log_message_keys:
            self.log_message_keys.add(kind)
            message += " (further occurrences of this error will be logged with level INFO)"
            self.runtime.run(self.logger.error, message)
        elif self.logger.isEnabledFor(logging.INFO):
            self.runtime.run(self.logger.info, message)

    def soon(self, task: Callable[[], None]) -> None:
        """:meth:`.Owner.soon`"""
        self.runtime.call_soon(task)

    def count(self, reason: str, source: str, detail: str = "") -> None:
        """:meth:`.Owner.count`"""
        # The log may have to wait.
        self.runtime.run(refusals.count, reason, f"{source}: {detail}" if detail else source)

    def count_of(self, session: Session, reason: str, detail: str = "") -> None:
        """The client of a session did something that is counted."""
        self.count(reason, session.address or "a client", detail)

    def is_behind(self) -> bool:
        """Whether more than ``SLOW_OUTPUT`` waits for a client."""
        return any(session.waiting > SLOW_OUTPUT for session in self.engine.sessions.values())

    # --- messages and the end -----------------------------------------------------------

    def run_alone(self, session: Session, task: Callable[..., Any], *args: Any) -> bool:
        """Start a task in the loop. The session's next message waits until it is done.

        :return: whether it is done.
        """
        self._busy[session] = False
        self.runtime.run(self._run, session, task, args)
        if session not in self._busy:
            return True
        self._busy[session] = True
        return False

    def _run(self, session: Session, task: Callable[..., Any], args: Any) -> None:
        try:
            task(*args)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # an application's eventlet.Timeout is not an Exception
            self.logger.exception("message handler error")
        finally:
            awaited = self._busy.pop(session)
            reason = self._reasons.pop(session, None)
            if reason is not None:
                self.runtime.soon(self._disconnect, session, reason)
            elif awaited:
                self.runtime.call_soon(session.proceed)

    def _disconnect(self, session: Session, reason: str) -> None:
        try:
            self.handlers["disconnect"](session.sid, reason)
        except Exception:
            self.logger.exception("disconnect handler error")
        finally:
            self.engine.forget(session.sid)

    # --- engineio's methods ---------------------------------------------------------------

    def send_packet(self, sid: str, pkt: Any) -> None:
        """Send an Engine.IO packet to a client; without its session only a log line is written."""
        session = self.engine.sessions.get(sid)
        if session is None or session.closed:
            self.logger.warning("Cannot send to sid %s", sid)
            return
        if pkt.packet_type == packet.MESSAGE:
            traffic.sent += 1
        session.send(pkt.encode())
        if self.logger.isEnabledFor(logging.INFO):
            self.logger.info(
                "%s: Sending packet %s data %s",
                sid,
                packet.packet_names[pkt.packet_type],
                "<binary>" if isinstance(pkt.data, bytes) else pkt.data,
            )

    def _get_socket(self, sid: str) -> Session:
        """Also for python-socketio's Admin UI."""
        session = self.engine.sessions.get(sid)
        if session is None:
            raise KeyError("Session not found")
        return session

    def get_session(self, sid: str) -> dict[str, Any]:
        """What the application has stored for a session: the same dictionary each time.

        :raises KeyError: when there is no such session.
        """
        session = self._get_socket(sid)
        if session.data is None:
            session.data = {}
        data: dict[str, Any] = session.data
        return data

    def save_session(self, sid: str, session: dict[str, Any]) -> None:
        """Store a dictionary for a session.

        :raises KeyError: when there is no such session.
        """
        self._get_socket(sid).data = session

    def transport(self, sid: str) -> str:
        """The transport that a client uses: ``polling`` or ``websocket``.

        :raises KeyError: when there is no such session.
        """
        return self._get_socket(sid).transport

    def disconnect(self, sid: Optional[str] = None) -> None:
        """Disconnect a client, or all: its disconnect handlers run soon."""
        sids = list(self.engine.sessions) if sid is None else [sid]
        for one in sids:
            session = self.engine.sessions.get(one)
            if session is not None:
                session.close(self.reason.SERVER_DISCONNECT)
