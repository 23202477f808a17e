"""The object on ``server.eio``: python-engineio's interface, implemented with our engine.

A ``socketio.Server`` creates an ``engineio.Server``, an ``AsyncServer`` an
``engineio.AsyncServer``, and registers its handlers with it. In a worker that object's class is
changed to :class:`EngineServer` or :class:`AsyncEngineServer`, which have the same options and the
same public methods, while :mod:`supervisor_sio.engine` has the sessions. Connections pass requests
of sessions directly to the engine; a handshake goes through the application, which may inspect,
wrap or refuse it.

The engine's methods are called in the loop. The public methods of an :class:`EngineServer` may be
called in any thread; those of an :class:`AsyncEngineServer` are coroutines of the loop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from dataclasses import replace
from functools import partial
from typing import Any, Callable, Optional, Protocol, Sequence, Union

import engineio
from engineio import packet

from ..cluster.sessions import ANOTHER_LOOP, traffic
from ..common.blocking import run_blocking, settle
from ..common.limits import SLOW_OUTPUT
from ..engine.engine import Engine
from ..engine.options import Options
from ..engine.request import Request
from ..engine.session import Exchange, Session
from ..relay import native
from . import access
from .asgi_environ import make_environ
from .runtime import Runtime
from .taker import EXCHANGE

#: The exceptions that end the process or the running task.
ENDS = (KeyboardInterrupt, SystemExit, asyncio.CancelledError)


class _Connection(Exchange, Protocol):
    """The connection of a request that the application has passed on."""

    @property
    def ended(self) -> bool:
        """Whether the connection has ended."""


class Lost:
    """The data of a lost client, whose session has ended, that handlers may request.

    :param stored: an object with the application's session data as ``data``.
    """

    __slots__ = ("stored", "environ")

    def __init__(self, stored: Any, environ: Any) -> None:
        self.stored = stored
        self.environ = environ


class EngineOwner:
    """The owner of an engine: calls the handlers of a sync or an async server."""

    # Inherited from python-engineio.
    handlers: dict[str, Callable[..., Any]]
    logger: Any
    log_message_keys: set[str]
    max_http_buffer_size: int
    reason: Any
    generate_id: Callable[[], str]
    create_event: Callable[[], Any]

    engine: Engine
    runtime: Runtime

    def start(self, runtime: Runtime) -> None:
        """Start serving clients with this server's python-engineio options.

        :raises ValueError: if an option, which it names, is wrong.
        """
        self.runtime = runtime
        self.engine = Engine(Options.of(self), self, runtime.deadlines, self.new_sid, runtime.date)
        # Includes sessions whose disconnect handlers are running, as in python-engineio.
        self.sockets = self.engine.sessions
        #: Called in the loop when a session has begun.
        self.began: Callable[[Session], None] = lambda session: None
        #: Called in the loop when a session has ended. Returns a function to call in the loop
        #: before the disconnect handlers, or ``None``.
        self.ended: Callable[[Session], Optional[Callable[[], None]]] = lambda session: None
        #: Called in the loop before a client is sent something that does not come from the manager.
        self.before_sending: Callable[[], None] = lambda: None
        #: Called by :meth:`on_behind`, in the loop.
        self.behind: Callable[[Session, bool], None] = lambda session, behind: None
        #: Called in the loop when a session's next message may be delivered.
        self.proceed: Callable[[Session], None] = Session.proceed
        #: Sessions for which a task runs alone; true if the next message waits for its end.
        self._busy: dict[Session, bool] = {}
        #: Why sessions ended whose task is still running.
        self._reasons: dict[Session, str] = {}
        #: Lost clients by the id of their session, see :mod:`.recovery`.
        self.lost: dict[str, Lost] = {}
        #: Finds a lost client whose session was in a worker that has died.
        self.find_lost: Callable[[str], Optional[Lost]] = lambda sid: None
        #: Held while the dictionary for a session's data is created or replaced.
        self._making = native.lock()

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a python-engineio option also takes effect in the running engine.

        :raises ValueError: if an option's value is wrong; the option is unchanged then.
        """
        if name in Options.__dataclass_fields__ and "engine" in vars(self):
            self.engine.configure(replace(self.engine.options, **{name: value}))
        super().__setattr__(name, value)

    def new_sid(self) -> str:
        """A new session id, which begins with this worker's tag."""
        return str(self.generate_id())

    def call(self, task: Callable[..., Any], *args: Any) -> Any:
        """Call an ``async def`` that may wait for handlers; passed to the runtime."""
        raise NotImplementedError

    async def wait(self, event: Any, seconds: float) -> None:
        """Wait for an event that ``create_event()`` returned; called where handlers run."""
        raise NotImplementedError

    def in_loop(self, task: Callable[..., Any], *args: Any) -> None:
        """Call a function that does not block in the loop: now, if this is the loop's thread."""
        threads = self.runtime.threads
        if threads is None or threads.here:
            task(*args)
        else:
            threads.run(0, task, *args)

    # --- requests -----------------------------------------------------------------

    def _take(self, request_of: dict[str, Any], kind: str) -> tuple[Request, _Connection]:
        taker = request_of.get(EXCHANGE)
        if taker is None:
            raise RuntimeError(
                "a Socket.IO server of a supervisor-sio worker cannot be called by another "
                f"{kind} server"
            )
        taken: tuple[Request, _Connection] = taker.take()
        return taken

    async def _handle(
        self,
        request: Request,
        exchange: _Connection,
        environ: dict[str, Any],
        read: Callable[[int], Any],
    ) -> None:
        """Handle a request that the application has passed on, nearly always a handshake.

        Other requests go through the application if their path is not known as the engine's yet,
        or a function of the application decides whether their origin is accepted.

        :param read: reads the body of a POST, up to the given number of bytes.
        """
        engine = self.engine
        engine.add_path(request.head.path)
        refusal = engine.check(request)
        if refusal is not None:
            exchange.answer(refusal)
        elif not request.sid:
            await self._open(request, exchange, environ)
        else:
            body = None
            if request.head.method == "POST":
                body = await settle(read(engine.options.max_http_buffer_size + 1))
            self.runtime.call_soon(self._handle_late, request, exchange, body)

    def _handle_late(self, request: Request, exchange: _Connection, body: Optional[bytes]) -> None:
        if body is not None and len(body) > self.engine.options.max_http_buffer_size:
            self.engine.refuse_body(request, exchange)
        else:
            self.engine.handle(request, exchange, body)
        if exchange.ended:
            self.engine.gone(exchange)

    async def _open(self, request: Request, exchange: _Connection, environ: dict[str, Any]) -> None:
        session = self.engine.open(request)
        try:
            answer = await settle(self.handlers["connect"](session.sid, environ))
        except Exception:
            self.logger.exception("connect handler error")
            answer = False
        except BaseException:  # an application's eventlet.Timeout is not an Exception
            self.engine.refuse(session, request, exchange, None)
            raise
        if answer is None or answer is True:
            traffic.opened += 1
            if self.runtime.access is not None and not session.closed:
                self.runtime.access.opened(session, request, access.logger.info)
            self.engine.accept(session, request, exchange)  # this may end the session
            if not session.closed:
                self.began(session)
        else:
            self.logger.warning("Application rejected connection")
            self.engine.refuse(session, request, exchange, answer or None)

    # --- called by the engine -----------------------------------------------------------

    def on_message(self, session: Session, data: Union[str, bytes]) -> bool:
        """:meth:`.Owner.on_message`; a :class:`.Dispatcher` replaces it with its own."""
        traffic.received += 1
        return self.run_alone(session, self.handlers["message"], session.sid, data)

    def on_close(self, session: Session, reason: str) -> None:
        """:meth:`.Owner.on_close`"""
        if self.runtime.access is not None:
            write = partial(self.runtime.log, access.logger, logging.INFO)
            self.runtime.access.ended(session, reason, write)
        if session in self._busy:
            self._reasons[session] = reason
        else:
            self._end(session, reason)

    def on_behind(self, session: Session, behind: bool) -> None:
        """:meth:`.Owner.on_behind`"""
        self.behind(session, behind)

    def on_upgrade(self, session: Session) -> None:
        """:meth:`.Owner.on_upgrade`"""
        if self.logger.isEnabledFor(logging.INFO):
            text = "%s: Upgrade to websocket successful"
            self.runtime.log(self.logger, logging.INFO, text, session.sid)

    def on_refusal(self, kind: str, message: str) -> None:
        """:meth:`.Owner.on_refusal`"""
        if kind not in self.log_message_keys:
            self.log_message_keys.add(kind)
            message += " (further occurrences of this error will be logged with level INFO)"
            self.runtime.log(self.logger, logging.ERROR, message)
        elif self.logger.isEnabledFor(logging.INFO):
            self.runtime.log(self.logger, logging.INFO, message)

    def soon(self, task: Callable[[], None]) -> None:
        """:meth:`.Owner.soon`"""
        self.runtime.call_soon(task)

    def count(self, reason: str, source: str, detail: str = "") -> None:
        """:meth:`.Owner.count`"""
        self.runtime.count(reason, f"{source}: {detail}" if detail else source)

    def count_of(self, session: Session, reason: str, detail: str = "") -> None:
        """Count a fault of a session's client."""
        self.in_loop(self.count, reason, session.address or "a client", detail)

    def up_to_date(self, sids: Sequence[str]) -> list[str]:
        """The clients among these that have no pending output."""
        found = ((sid, self.engine.sessions.get(sid)) for sid in sids)
        return [sid for sid, session in found if session is not None and not session.waiting]

    def is_behind(self) -> bool:
        """Whether a client has more than ``SLOW_OUTPUT`` bytes of pending output."""
        return any(session.waiting > SLOW_OUTPUT for session in self.engine.sessions.values())

    def waiting(self, sid: str) -> int:
        """Bytes of pending output of a client."""
        session = self.engine.sessions.get(sid)
        return 0 if session is None else session.waiting

    # --- messages and the end -----------------------------------------------------------

    def run_alone(
        self,
        session: Session,
        task: Callable[..., Any],
        *args: Any,
        run: Optional[Callable[..., Any]] = None,
    ) -> bool:
        """Start a task. The session's next message waits until it has ended.

        :param task: a function, or a coroutine function for an async server.
        :param run: used instead of :meth:`.Runtime.run`.
        :return: whether it has ended.
        """
        self._busy[session] = False
        (run or self.runtime.run)(self.call, self._run, session, task, args)
        if session not in self._busy:
            return True
        self._busy[session] = True
        return False

    async def _run(self, session: Session, task: Callable[..., Any], args: Any) -> None:
        try:
            await settle(task(*args))
        except ENDS:
            raise
        except BaseException:  # an application's eventlet.Timeout is not an Exception
            self.logger.exception("message handler error")
        finally:
            self.in_loop(self._done, session)

    def _done(self, session: Session) -> None:
        awaited = self._busy.pop(session)
        reason = self._reasons.pop(session, None)
        if reason is not None:
            self._end(session, reason)
        elif awaited:
            self.runtime.call_soon(self.proceed, session)

    def taken_back(self, session: Session) -> None:
        """The task of :meth:`run_alone` will not be started; called in the loop."""
        if self._busy.pop(session):
            self.runtime.call_soon(self.proceed, session)

    def is_busy(self, session: Session) -> bool:
        """Whether :meth:`run_alone` runs a task for the session."""
        return session in self._busy

    def _end(self, session: Session, reason: str) -> None:
        last = self.ended(session)
        if last is None:
            self.runtime.soon(self.call, self._disconnect, session, reason)
        else:
            self.runtime.call_soon(self._end_after, last, session, reason)

    def _end_after(self, last: Callable[[], None], session: Session, reason: str) -> None:
        try:
            last()
        finally:
            self.runtime.soon(self.call, self._disconnect, session, reason)

    async def _disconnect(self, session: Session, reason: str) -> None:
        try:
            await settle(self.handlers["disconnect"](session.sid, reason))
        except Exception:
            self.logger.exception("disconnect handler error")
        finally:
            self.in_loop(self.engine.forget, session.sid)

    # --- for python-engineio's methods ----------------------------------------------------

    def deliver(self, sid: str, pkt: Any) -> None:
        """Send an Engine.IO packet to a client; without a session, only log that. In the loop."""
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

    def deliver_alone(self, sid: str, pkt: Any) -> None:
        """Send an Engine.IO packet that does not come from the manager. In the loop."""
        self.before_sending()
        self.deliver(sid, pkt)

    def deliver_each(self, sids: Sequence[str], messages: Sequence[Union[str, bytes]]) -> None:
        """Send messages to clients, and log each of them. Call it in the loop."""
        for sid in sids:
            for message in messages:
                self.deliver(sid, packet.Packet(packet.MESSAGE, message))

    def close(self, sid: Optional[str]) -> None:
        """Disconnect a client, or all; their disconnect handlers run soon. Call it in the loop."""
        self.before_sending()
        sids = list(self.engine.sessions) if sid is None else [sid]
        for sid in sids:
            session = self.engine.sessions.get(sid)
            if session is not None:
                session.close(self.reason.SERVER_DISCONNECT)

    def _get_socket(self, sid: str) -> Session:
        """A session by id; python-socketio's Admin UI calls it, too."""
        session = self.engine.sessions.get(sid)
        if session is None:
            raise KeyError("Session not found")
        return session

    def _stored(self, sid: str) -> Any:
        """The object with the application's session data as ``data``.

        :raises KeyError: if there is no such session.
        """
        lost = self.lost.get(sid) if self.lost else None
        if lost is None:
            session = self.engine.sessions.get(sid)
            if session is not None:
                return session
            lost = self.find_lost(sid)
        return self._get_socket(sid) if lost is None else lost.stored

    def _data_of(self, sid: str) -> dict[str, Any]:
        session = self._stored(sid)
        if session.data is None:
            with self._making:
                if session.data is None:
                    session.data = {}
        data: dict[str, Any] = session.data
        return data

    def may_have_stored(self, sid: str) -> bool:
        """Whether the application may have stored data; false if it has not used the session's."""
        session = self.engine.sessions.get(sid)
        return session is None or session.data is not None

    def transport(self, sid: str) -> str:
        """The transport that a client uses: ``polling`` or ``websocket``.

        :raises KeyError: if there is no such session.
        """
        return self._get_socket(sid).transport


class EngineServer(EngineOwner, engineio.Server):  # type: ignore[misc]
    """The Engine.IO server of a sync Socket.IO server in a worker."""

    def call(self, task: Callable[..., Any], *args: Any) -> Any:
        return run_blocking(task(*args))

    async def wait(self, event: Any, seconds: float) -> None:
        event.wait(seconds)

    def handle_request(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Handle a request that the application has passed on."""
        request, exchange = self._take(environ, "WSGI")
        read, threads = environ["wsgi.input"].read, self.runtime.threads
        if threads is None or threads.here:
            run_blocking(self._handle(request, exchange, environ, read))
            return ()
        # This may block, so call it in this thread; its result is stored in the request.
        self.engine.answers.is_origin_allowed(request)
        body = b""
        if request.sid and request.head.method == "POST":
            body = read(self.max_http_buffer_size + 1)
        threads.run(
            len(body), self.call, self._handle, request, exchange, environ, lambda most: body
        )
        return ()

    def send_packet(self, sid: str, pkt: Any) -> None:
        """Send an Engine.IO packet to a client; without a session, only log that."""
        self.in_loop(self.deliver_alone, sid, pkt)

    def get_session(self, sid: str) -> dict[str, Any]:
        """The application's data of a session: the same dictionary at each call.

        :raises KeyError: if there is no such session.
        """
        return self._data_of(sid)

    def save_session(self, sid: str, session: dict[str, Any]) -> None:
        """Replace the application's data of a session.

        :raises KeyError: if there is no such session.
        """
        stored = self._stored(sid)
        with self._making:
            stored.data = session

    def disconnect(self, sid: Optional[str] = None) -> None:
        """Disconnect a client, or all; their disconnect handlers run soon."""
        self.in_loop(self.close, sid)


class AsyncEngineServer(EngineOwner, engineio.AsyncServer):  # type: ignore[misc]
    """The Engine.IO server of an ``AsyncServer`` in a worker."""

    def call(self, task: Callable[..., Any], *args: Any) -> Any:
        return task(*args)

    async def wait(self, event: Any, seconds: float) -> None:
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    async def handle_request(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Handle a request that the application has passed on."""
        request, exchange = self._take(scope, "ASGI")
        environ = make_environ(scope)
        try:
            await self._handle(request, exchange, environ, lambda most: _read(receive, most))
            if scope["type"] == "http":
                # The engine answers the client; but some middleware fails without a response.
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b""})
        finally:
            # The session refers to the scope, and must not keep the connection alive.
            scope.pop(EXCHANGE, None)

    async def send_packet(self, sid: str, pkt: Any) -> None:
        """:meth:`EngineServer.send_packet`

        :raises RuntimeError: if it is not called in the loop that serves the clients.
        """
        self._check_loop()
        self.deliver_alone(sid, pkt)

    async def get_session(self, sid: str) -> dict[str, Any]:
        """:meth:`EngineServer.get_session`"""
        return self._data_of(sid)

    async def save_session(self, sid: str, session: dict[str, Any]) -> None:
        """:meth:`EngineServer.save_session`"""
        self._stored(sid).data = session

    async def disconnect(self, sid: Optional[str] = None) -> None:
        """:meth:`EngineServer.disconnect`

        :raises RuntimeError: if it is not called in the loop that serves the clients.
        """
        self._check_loop()
        self.close(sid)

    def _check_loop(self) -> None:
        threads = self.runtime.threads
        if threads is not None and not threads.here:
            raise RuntimeError(ANOTHER_LOOP)


async def _read(receive: Callable[[], Any], most: int) -> bytes:
    """Read the body of an ASGI request, at most ``most`` bytes.

    :raises ConnectionResetError: if the connection ends before the body.
    """
    parts, size, more = [], 0, True
    while more and size < most:
        event = await receive()
        if event["type"] != "http.request":
            raise ConnectionResetError(errno.ECONNRESET, "the client is gone")
        parts.append(event.get("body", b""))
        size += len(parts[-1])
        more = event.get("more_body", False)
    return b"".join(parts)[:most]
