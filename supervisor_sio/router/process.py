"""The router process: accept, peek, choose, hand over; and the relay beside it.

A connection stays here only until its request line is read and a worker is
there to take it. The line is peeked, never consumed, so that the worker finds
the connection as the client left it; what a worker read before it handed a
connection back travels with the descriptor as ``prefix``.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import signal
import socket
import sys
import time
from collections import Counter, deque
from typing import Any, Optional

from supervisor.options import make_namespec

from .. import channel
from ..channel import ChannelError, Message, Packet
from ..relay.proxy import Relay
from ..request import MAX_REQUEST_LINE, BadRequest, Kind, parse_head
from ..rundir import RunDir
from .events import READY, RESULT_OK, EventReader
from .pool import Member, Pool

logger = logging.getLogger("supervisor_sio.router")

#: Connections accepted, or packets read, before other descriptors get a turn.
_BATCH = 64

#: Seconds after its start in which a router waits for workers that lived
#: through the one before it, before it calls their sessions unknown.
_REJOIN_TIME = 2.0

#: Seconds between the first worker after none and the release of those who
#: waited: its siblings are about to join, and should get their share.
_SETTLE_TIME = 0.25

_RETRY_AFTER = 1


class Connection:
    """A client's connection, on its way to a worker."""

    __slots__ = ("sock", "peer", "local", "scheme", "prefix", "deadline", "kind", "tag", "peeked")

    def __init__(
        self, sock: socket.socket, peer: Any, local: Any, scheme: str, prefix: bytes = b""
    ) -> None:
        self.sock = sock
        self.peer = peer
        self.local = local
        self.scheme = scheme
        self.prefix = prefix
        self.deadline = 0.0
        #: ``None`` for an idle connection that a worker gave back.
        self.kind: Optional[Kind] = None
        self.tag = ""
        self.peeked = 0


class WorkerChannel:
    """The channel to one worker, and the connections that wait to go through it."""

    def __init__(self, router: Router, sock: socket.socket) -> None:
        self._router = router
        self._sock = sock
        self._peer = channel.peer_of(sock)
        self._outbox: deque[Connection] = deque()
        self._closed = False
        self.member: Optional[Member] = None
        router.loop.add_reader(sock.fileno(), self.read)

    def read(self) -> None:
        try:
            for _ in range(_BATCH):
                packet = channel.receive(self._sock)
                if packet is None:
                    self.lose("")
                    return
                self._handle(packet)
        except BlockingIOError:
            pass
        except ChannelError as error:
            self.lose(str(error))
        except OSError as error:
            self.lose(error.strerror)

    def _handle(self, packet: Packet) -> None:
        message, descriptors = packet
        kind = message["type"]
        if kind != "connection":
            channel.close_all(descriptors)
        if self.member is None:
            if kind == "connection":
                channel.close_all(descriptors)
            self._greet(message)
        elif kind == "load":
            self._update(message)
        elif kind == "ready":
            self.member.ready = True
            self._router.worker_ready(self.member)
        elif kind == "draining":
            self.member.draining = True
        elif kind == "connection":
            self._take_back(message, descriptors)
        else:
            raise ChannelError(f"unknown type {kind!r}")

    def _greet(self, hello: Message) -> None:
        if hello["type"] != "hello":
            raise ChannelError(f"expected hello, not {hello['type']!r}")
        channel.check_version(hello, "the worker")
        tag, name = hello.get("tag"), hello.get("name")
        if not isinstance(tag, str) or not tag or not isinstance(name, str):
            raise ChannelError("a hello without tag and name")
        self.member = self._router.join(tag, name, self._peer.pid, self)
        channel.send(self._sock, {"type": "welcome", **self._router.worker_settings})

    def _update(self, message: Message) -> None:
        member = self.member
        assert member is not None
        try:
            member.sessions = int(message["sessions"])
            member.connections = int(message["connections"])
            member.handshakes_seen = int(message["handshakes"])
            member.dropped = int(message["dropped"])
        except (KeyError, TypeError, ValueError):
            raise ChannelError("a load without its figures") from None

    def _take_back(self, message: Message, descriptors: list[int]) -> None:
        if len(descriptors) != 1:
            raise ChannelError("a connection without its descriptor")
        sock = socket.socket(fileno=descriptors[0])
        try:
            prefix = message.get("prefix", "").encode("latin-1")
            connection = Connection(
                sock, message["peer"], message["local"], message["scheme"], prefix
            )
        except (KeyError, AttributeError, UnicodeEncodeError):
            sock.close()
            raise ChannelError("a connection without its addresses") from None
        self._router.handed_back += 1
        self._router.place_again(connection)

    def hand_over(self, connection: Connection) -> None:
        """Pass a connection on; it waits its turn while the worker is slow to read."""
        self._outbox.append(connection)
        if len(self._outbox) == 1:
            self._flush()

    def _flush(self) -> None:
        loop, outbox = self._router.loop, self._outbox
        while outbox and not self._closed:
            connection = outbox[0]
            message: Message = {
                "type": "connection",
                "peer": connection.peer,
                "local": connection.local,
                "scheme": connection.scheme,
                # Its first request is for this worker; an idle one's may not be.
                "placed": connection.kind is not None,
                "handshake": connection.kind is Kind.HANDSHAKE,
            }
            if connection.prefix:
                message["prefix"] = connection.prefix.decode("latin-1")
            try:
                channel.send(self._sock, message, [connection.sock.fileno()])
            except BlockingIOError:
                loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError as error:
                if error.errno in (errno.ETOOMANYREFS, errno.ENOBUFS):
                    # Too many descriptors on their way: until some have arrived.
                    loop.call_later(0.05, self._flush)
                else:
                    self.lose(error.strerror)
                return
            outbox.popleft()
            connection.sock.close()
            self._router.handed_over += 1
        if not self._closed:
            loop.remove_writer(self._sock.fileno())

    def lose(self, reason: Optional[str]) -> None:
        if not self._closed:
            self.close()
            self._router.leave(self, reason or "")
            for connection in self._outbox:
                self._router.place_again(connection)
            self._outbox.clear()

    def refuse(self, reason: str) -> None:
        """Tell the worker why, and close."""
        try:
            channel.send(self._sock, {"type": "refused", "reason": reason})
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        self._closed = True
        self._router.loop.remove_reader(self._sock.fileno())
        self._router.loop.remove_writer(self._sock.fileno())
        self._sock.close()


class Router:
    """The whole of it. ``run`` until it is told to stop; the exit status is the result."""

    def __init__(self, run_dir: RunDir, supervisord: socket.socket, welcome: Packet) -> None:
        self.loop = asyncio.get_running_loop()
        self._stopped: asyncio.Future[int] = self.loop.create_future()
        self._supervisord = supervisord
        settings = welcome.message
        self._paths = tuple(path.encode() for path in settings["path"])
        self._hold_timeout: float = settings["hold_timeout"]
        self._head_timeout: float = settings["head_timeout"]
        self._max_pending: int = settings["max_pending"]
        self.worker_settings: Message = {
            "version": channel.VERSION,
            "path": settings["path"],
            "drain_timeout": settings["drain_timeout"],
        }
        self._scheme = "http"
        *listeners, workers, xsub, xpub = welcome.descriptors
        self._listeners = [socket.socket(fileno=descriptor) for descriptor in listeners]
        self._worker_listener = socket.socket(fileno=workers)
        self._relay = Relay(run_dir.xsub, xsub, run_dir.xpub, xpub)
        self._pool = Pool(settings["balance"])
        self._channels: dict[str, WorkerChannel] = {}
        self._strangers: set[WorkerChannel] = set()
        #: Connections whose request line is not complete.
        self._heads: dict[int, Connection] = {}
        #: Connections that no worker can take yet, oldest first.
        self._held: deque[Connection] = deque()
        self._events = EventReader()
        self._started = time.monotonic()
        self._settled = True
        self.handed_over = 0
        self.handed_back = 0
        self._refused: Counter[str] = Counter()
        self._dropped_by_the_gone = 0
        self._last_warning = 0.0

    async def run(self) -> int:
        loop = self.loop
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, 0)
        loop.add_reader(self._supervisord.fileno(), self._read_supervisord)
        self._protocol_out = _claim_stdout()
        os.set_blocking(0, False)
        loop.add_reader(0, self._read_events)
        self._answer(READY)
        # Workers that were here before this router first: they have connected
        # already, and their sessions' requests must find them.
        self._worker_listener.setblocking(False)
        loop.add_reader(self._worker_listener.fileno(), self._accept_workers)
        self._accept_workers()
        for listener in self._listeners:
            listener.setblocking(False)
            loop.add_reader(listener.fileno(), self._accept, listener, listener.getsockname())
        self._tick()
        logger.info("router ready (pid %d)", os.getpid())
        status = await self._stopped
        for listener in self._listeners:
            loop.remove_reader(listener.fileno())
            listener.close()
        self._relay.close()
        return status

    def _stop(self, status: int) -> None:
        if not self._stopped.done():
            self._stopped.set_result(status)

    # --- supervisord ---------------------------------------------------------

    def _read_supervisord(self) -> None:
        try:
            packet: Optional[Packet] = channel.receive(self._supervisord, 0)
        except BlockingIOError:
            return
        except (OSError, ChannelError):
            packet = None
        if packet is None:
            # supervisord is stopping and will stop this process in its turn, or
            # it is gone and standard input ends. Until then, carry on.
            self.loop.remove_reader(self._supervisord.fileno())

    def _read_events(self) -> None:
        try:
            data = os.read(0, 65536)
        except BlockingIOError:
            return
        if not data:
            logger.error("supervisord is gone, the router leaves too")
            self._stop(1)
            return
        try:
            for event in self._events.feed(data):
                if event.name == "PROCESS_STATE_STOPPING":
                    values = event.values
                    self._pool.drain(
                        make_namespec(values.get("groupname", ""), values.get("processname", ""))
                    )
                self._answer(RESULT_OK + READY)
        except ValueError as error:
            logger.error("standard input is not supervisord's: %s", error)
            self._stop(1)

    def _answer(self, data: bytes) -> None:
        # A few bytes for each event supervisord waits for: the pipe has room.
        try:
            os.write(self._protocol_out, data)
        except OSError as error:
            logger.error("cannot answer supervisord: %s", error.strerror)
            self._stop(1)

    def _tick(self) -> None:
        """Once a second: deadlines, and the figures for supervisord."""
        self.loop.call_later(1.0, self._tick)
        now = time.monotonic()
        for connection in [c for c in self._heads.values() if c.deadline <= now]:
            self._forget_head(connection)
            if connection.kind is None and connection.peeked == 0:
                self._close(connection, "idle")
            else:
                self._refuse(connection, "408 Request Timeout", "head-timeout")
        self._place_held(now)
        self._send_figures()
        if not self._relay.alive:
            logger.critical("the relay has stopped, the router leaves to start afresh")
            self._stop(1)

    def _send_figures(self) -> None:
        relay = self._relay.figures()
        message: Message = {
            "type": "figures",
            "handed_over": self.handed_over,
            "handed_back": self.handed_back,
            "waiting": len(self._held) + len(self._heads),
            "refused": self._refused,
            "relay_alive": self._relay.alive,
            "messages": relay.received,
            "delivered": relay.sent,
            "dropped": self._dropped_by_the_gone + sum(m.dropped for m in self._pool),
            "workers": [
                {
                    "tag": member.tag,
                    "name": member.name,
                    "pid": member.pid,
                    "state": member.state,
                    "sessions": member.sessions,
                    "connections": member.connections,
                }
                for member in self._pool
            ],
        }
        try:
            channel.send(self._supervisord, message)
        except OSError:
            pass  # busy or stopping; the next second brings newer ones
        except ChannelError as error:
            self._warn("figures: %s", error)

    # --- workers -------------------------------------------------------------

    def _accept_workers(self) -> None:
        while True:
            try:
                sock, _ = self._worker_listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._warn("cannot accept a worker: %s", error.strerror)
                return
            sock.setblocking(False)
            stranger = WorkerChannel(self, sock)
            self._strangers.add(stranger)
            # What it sent while it waited for us is there already.
            stranger.read()

    def join(self, tag: str, name: str, pid: int, worker: WorkerChannel) -> Member:
        """:raises ChannelError: when another living process has this tag."""
        there = self._pool.with_tag(tag)
        if there is not None:
            if there.pid != pid:
                worker.refuse(f"tag {tag} belongs to {there.name} (pid {there.pid})")
                raise ChannelError(f"a second claim of tag {tag}")
            self._channels[tag].lose("it has connected again")
        member = Member(tag, name, pid)
        self._strangers.discard(worker)
        self._pool.add(member)
        self._channels[tag] = worker
        return member

    def worker_ready(self, member: Member) -> None:
        logger.info("worker %s joins (pid %d, tag %s)", member.name, member.pid, member.tag)
        if self._held and not any(other.eligible for other in self._pool if other is not member):
            self._settled = False
            self.loop.call_later(_SETTLE_TIME, self._settle)
        self._place_held(time.monotonic())
        self._send_figures()

    def _settle(self) -> None:
        self._settled = True
        self._place_held(time.monotonic())

    def leave(self, worker: WorkerChannel, reason: str) -> None:
        self._strangers.discard(worker)
        member = worker.member
        if member is None:
            if reason:
                self._warn("a connection to router.sock is refused: %s", reason)
            return
        self._dropped_by_the_gone += member.dropped
        if self._channels.get(member.tag) is worker:
            del self._channels[member.tag]
            self._pool.remove(member)
        if member.draining:
            logger.info("worker %s leaves (pid %d)", member.name, member.pid)
        else:
            logger.warning(
                "worker %s is lost (pid %d)%s",
                member.name,
                member.pid,
                f": {reason}" if reason else "",
            )
        self._send_figures()

    # --- connections ---------------------------------------------------------

    def _accept(self, listener: socket.socket, local: Any) -> None:
        for _ in range(_BATCH):
            try:
                sock, peer = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:
                # Out of descriptors, most likely: let some go before the next try.
                self._warn("cannot accept: %s", error.strerror)
                self.loop.remove_reader(listener.fileno())
                self.loop.call_later(
                    0.1, self.loop.add_reader, listener.fileno(), self._accept, listener, local
                )
                return
            connection = Connection(sock, peer, local, self._scheme)
            connection.deadline = time.monotonic() + self._head_timeout
            self._examine(connection)

    def place_again(self, connection: Connection) -> None:
        """A connection that a worker gave back, or that was on its way to a lost one."""
        connection.kind = None
        if connection.prefix:
            connection.deadline = time.monotonic() + self._head_timeout
            self._examine(connection)
        else:
            # Idle between two requests: any worker can wait for the next one.
            self._place(connection)

    def _examine(self, connection: Connection) -> None:
        """Judge what has arrived; come back when there is more."""
        data = connection.prefix
        try:
            if b"\n" not in data:
                flags = socket.MSG_PEEK | socket.MSG_DONTWAIT
                peeked = connection.sock.recv(MAX_REQUEST_LINE + 16, flags)
                if not peeked:
                    self._forget_head(connection)
                    self._close(connection, "closed-early" if connection.peeked else "")
                    return
                connection.peeked = len(peeked)
                data += peeked
            request = parse_head(data, self._paths)
        except BlockingIOError:
            self._wait_for_head(connection)
            return
        except OSError:
            self._forget_head(connection)
            self._close(connection, "reset")
            return
        except BadRequest as bad:
            self._forget_head(connection)
            self._refuse(connection, bad.status, bad.reason)
            return
        if request is None:
            self._wait_for_head(connection)
            return
        self._forget_head(connection)
        connection.kind, connection.tag = request
        self._place(connection)

    def _wait_for_head(self, connection: Connection) -> None:
        descriptor = connection.sock.fileno()
        if connection.peeked:
            # Wake up for more than was seen: level-triggered polling would spin on it.
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, connection.peeked + 1)
        if descriptor not in self._heads:
            if self._full():
                self._refuse(connection, "503 Service Unavailable", "max-pending")
                return
            self._heads[descriptor] = connection
            self.loop.add_reader(descriptor, self._examine, connection)

    def _forget_head(self, connection: Connection) -> None:
        descriptor = connection.sock.fileno()
        if self._heads.pop(descriptor, None) is not None:
            self.loop.remove_reader(descriptor)
            if connection.peeked:
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def _full(self) -> bool:
        return len(self._heads) + len(self._held) >= self._max_pending

    def _place(self, connection: Connection) -> None:
        if not self._placed(connection, time.monotonic()):
            if self._full():
                self._refuse(connection, "503 Service Unavailable", "max-pending")
                return
            connection.deadline = time.monotonic() + self._hold_timeout
            if not self._held:
                logger.warning("no worker is ready: connections wait")
            self._held.append(connection)

    def _placed(self, connection: Connection, now: float) -> bool:
        """Hand a connection over, if there is a worker for it."""
        member: Optional[Member]
        if connection.kind is Kind.SESSION:
            member = self._pool.owner(connection.tag)
            if member is None:
                if connection.tag and now - self._started < _REJOIN_TIME:
                    return False
                # Nobody's session any more: any worker can say so.
                member = self._pool.place_plain()
        elif not self._settled:
            return False
        elif connection.kind is Kind.HANDSHAKE:
            member = self._pool.place_handshake()
            if member is not None:
                member.handshakes += 1
        else:
            member = self._pool.place_plain()
        if member is None:
            return False
        self._channels[member.tag].hand_over(connection)
        return True

    def _place_held(self, now: float) -> None:
        if not self._held:
            return
        held, self._held = self._held, deque()
        for connection in held:
            if self._placed(connection, now):
                continue
            if connection.deadline > now:
                self._held.append(connection)
            elif connection.kind is None:
                self._close(connection, "hold-timeout")
            else:
                self._refuse(connection, "503 Service Unavailable", "hold-timeout")
        if not self._held:
            logger.info("no connection waits any more")

    def _refuse(self, connection: Connection, status: str, reason: str) -> None:
        """Answer and close. Best effort: a client that does not read gets no answer."""
        retry = f"Retry-After: {_RETRY_AFTER}\r\n" if status.startswith("503") else ""
        body = f"{status}\n"
        answer = (
            f"HTTP/1.1 {status}\r\n{retry}Connection: close\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        sock = connection.sock
        try:
            # Closing over unread bytes would reset the connection, and the
            # answer with it (RFC 9112, section 9.6).
            sock.recv(65536, socket.MSG_DONTWAIT)
        except OSError:
            pass
        try:
            sock.send(answer.encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self._close(connection, reason)

    def _close(self, connection: Connection, reason: str) -> None:
        if reason:
            self._refused[reason] += 1
        connection.sock.close()

    def _warn(self, message: str, *args: object) -> None:
        """At most one line a second: what goes wrong here can go wrong very often."""
        now = time.monotonic()
        if now - self._last_warning >= 1.0:
            self._last_warning = now
            logger.warning(message, *args)


def _claim_stdout() -> int:
    """Standard output is the event listener protocol: let nobody else write there."""
    protocol = os.dup(1)
    os.dup2(2, 1)
    return protocol


def connect(run_dir: RunDir) -> tuple[socket.socket, Packet]:
    """Ask supervisord for the listening sockets.

    :raises ChannelError: when supervisord refuses, with its reason.
    :raises OSError: when supervisord is not there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(10)
    sock.connect(run_dir.supervisord)
    channel.send(sock, {"type": "hello", "version": channel.VERSION, "role": "router"})
    if not select.select([sock], [], [], 10)[0]:
        raise TimeoutError(errno.ETIMEDOUT, "no answer within 10 seconds")
    packet = channel.receive(sock, channel.MAX_DESCRIPTORS)
    if packet is None:
        raise ChannelError("supervisord closed the channel")
    if packet.message["type"] == "refused":
        raise ChannelError(str(packet.message.get("reason")))
    channel.check_version(packet.message, "supervisord")
    sock.setblocking(False)
    return sock, packet


def run() -> int:
    """The body of ``supervisor-sio router``; returns the exit status."""
    run_dir = RunDir.from_environment()
    if run_dir is None or "SUPERVISOR_ENABLED" not in os.environ:
        print(
            "supervisor-sio router: error: it runs under supervisord: put it in "
            "[eventlistener:sio] as command = supervisor-sio router with "
            "events = PROCESS_STATE, beside a [rpcinterface:sio] section",
            file=sys.stderr,
        )
        return 2
    try:
        supervisord, welcome = connect(run_dir)
    except (OSError, ChannelError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        logger.error("no listening sockets from supervisord (%s): %s", run_dir.supervisord, reason)
        return 1

    async def main() -> int:
        return await Router(run_dir, supervisord, welcome).run()

    return asyncio.run(main())
