"""Two workers in this process, and clients that must not notice which of them serves them.

Each worker has an engine without an application, whose owner echoes messages. A move does what the
router and workers do: states pass through JSON, descriptors through a socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Callable, Optional, Union

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet

from supervisor_sio.common.not_movable import NotMovable
from supervisor_sio.engine.engine import Engine
from supervisor_sio.engine.http import Head
from supervisor_sio.engine.options import Options
from supervisor_sio.engine.request import Request
from supervisor_sio.engine.session import Session
from supervisor_sio.worker.asyncio.runtime import AsyncioRuntime
from supervisor_sio.worker.base_runtime import BaseRuntime
from supervisor_sio.worker.connection import Connection
from supervisor_sio.worker.eventlet.runtime import HubRuntime
from supervisor_sio.worker.moved_sessions import Leaving, restore
from supervisor_sio.worker.server import Server
from supervisor_sio.worker.threads.runtime import ThreadsRuntime

#: Seconds for what has to happen.
PATIENCE = 20

PEER, LOCAL = ("192.0.2.1", 5), ("192.0.2.2", 80)

#: What comes in a turn may want another one: reading, an answer, what follows on it.
_TURNS = 4

#: After so many turns it is time that is waited for.
_BUSY_TURNS = 100


def _on_hub() -> None:
    eventlet.sleep(0)


def _on(runtime: AsyncioRuntime) -> Callable[[], None]:
    return lambda: runtime.loop.run_until_complete(asyncio.sleep(0))


#: By name, what makes a runtime; the last one has uvloop's loop, where that is installed.
KINDS: dict[str, Callable[[], Any]] = {"eventlet": HubRuntime}
if sys.version_info >= (3, 10):
    KINDS["threading"] = ThreadsRuntime
    KINDS["asyncio"] = lambda: AsyncioRuntime(asyncio.new_event_loop())
    if find_spec("uvloop") is not None:
        KINDS["uvloop"] = AsyncioRuntime

#: Two of each kind for all tests: their threads and descriptors have no end.
_runtimes: dict[str, tuple[Any, Any]] = {}


class Owner:
    """An engine's owner that echoes each message, after the time that a test sets."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.messages: list[Union[str, bytes]] = []
        self.closed: list[str] = []
        self.upgraded = 0
        self.counted: list[str] = []
        #: Whether it is busy with a message, until a test says that it is not.
        self.busy = False
        self.answers = True

    def on_message(self, session: Session, data: Union[str, bytes]) -> bool:
        self.messages.append(data)
        if self.answers:
            session.send("4" + data if isinstance(data, str) else data)
        return not self.busy

    def on_behind(self, session: Session, behind: bool) -> None:
        pass

    def on_upgrade(self, session: Session) -> None:
        self.upgraded += 1

    def on_close(self, session: Session, reason: str) -> None:
        self.closed.append(reason)
        self._worker.runtime.call_soon(self._worker.engine.forget, session.sid)

    def on_refusal(self, kind: str, message: str) -> None:
        self.counted.append(kind)

    def count(self, reason: str, source: str, detail: str = "") -> None:
        self.counted.append(reason)

    def soon(self, task: Callable[[], None]) -> None:
        self._worker.runtime.call_soon(task)


class Worker:
    """One of the two."""

    def __init__(self, runtime: BaseRuntime, options: Options, ids: Iterator[str]) -> None:
        self.runtime: Any = runtime
        self.owner = Owner(self)
        self.engine = Engine(
            options, self.owner, runtime.deadlines, lambda: next(ids), lambda: "a date of HTTP"
        )
        self.engine.add_path("/s/")
        runtime.engines[:] = [self.engine]
        self.runtime.serve = self._serve
        self.server = Server(
            None, self.runtime, lambda _: not self.server.draining, self._hand_back, lambda: None
        )
        self.server.paths = (b"/s/",)
        #: What goes back to the router: descriptors, and what was read.
        self.handed_back: list[tuple[int, bytes]] = []

    def _hand_back(self, connection: Connection, prefix: bytes) -> None:
        self.handed_back.append((os.dup(connection.fileno()), prefix))
        connection.moved(True)

    def _serve(self, connection: Connection, head: Head) -> None:
        """Instead of an application: pass the request on to the engine."""
        request = Request(head, connection.scheme, connection.address, dict)
        refusal = self.engine.check(request)
        if refusal is not None:
            connection.answer(refusal)
        elif not request.sid:
            self.engine.accept(self.engine.open(request), request, connection)
        else:
            self.engine.handle(request, connection, None)
        connection.leave_to_engine(False)

    def take(self, descriptor: int, prefix: bytes = b"") -> None:
        """Take a connection, as from the router."""
        self.runtime.descriptor_opened(descriptor)
        sock = socket.SocketType(-1, socket.SOCK_STREAM, 0, descriptor)
        sock.setblocking(False)
        made = Connection(self.server, sock, PEER, LOCAL, "http", prefix, placed=False)
        self.runtime.call_soon(made.open)

    @property
    def due(self) -> list[Any]:
        """The items that have a deadline."""
        items = [item for slot in self.runtime.deadlines._slots.values() for item in slot]
        return [item for item in items if item.deadline != float("inf")]

    def is_left(self) -> bool:
        """Whether the worker still has anything of any client."""
        return not (self.server.connections or self.engine.sessions or self.due)


class Client:
    """One connection of a client, with the bytes that it has received."""

    def __init__(self, pair: Pair) -> None:
        ours, self.sock = socket.socketpair()
        self.sock.setblocking(False)
        self.data = b""
        self.ended = False
        pair.here.take(ours.detach())

    def send(self, data: bytes) -> bytes:
        """Send data; return the part that did not fit."""
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                break
        return data

    def read(self, most: int = 1 << 20) -> None:
        try:
            data = self.sock.recv(most)
            self.ended = self.ended or not data
            self.data += data
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.ended = True


class Pair:
    """Two workers, one of which has the clients."""

    def __init__(self, kind: str, **options: Any) -> None:
        if kind not in _runtimes:
            _runtimes[kind] = KINDS[kind](), KINDS[kind]()
        ids = (f"tag.{number}" for number in range(1, 1000))
        made = [Worker(runtime, Options(**options), ids) for runtime in _runtimes[kind]]
        self.here, self.there = made
        for worker in made:
            worker.runtime.prepare_threads()  # it opens descriptors of its own, once
        self.clients: list[Client] = []
        turns = [_on_hub] if kind == "eventlet" else [_on(worker.runtime) for worker in made]
        self._turns = turns

    def connect(self) -> Client:
        client = Client(self)
        self.clients.append(client)
        return client

    def turn(self, count: int = _TURNS) -> None:
        for _ in range(count):
            for turn in self._turns:
                turn()
            self._route()

    def wait(self, condition: Callable[[], Any], what: str, read: bool = True) -> None:
        """:param read: whether the clients read meanwhile."""
        turns = 0
        deadline = time.monotonic() + PATIENCE
        while not condition():
            seen = [(client.data[-200:], client.ended) for client in self.clients]
            assert time.monotonic() < deadline, f"no {what}: {seen}"
            self.turn(1)
            for client in self.clients if read else ():
                client.read()
            turns += 1
            if turns > _BUSY_TURNS:
                time.sleep(0.001)

    def idle(self, seconds: float) -> None:
        """Run turns of the loops for this time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn(1)
            time.sleep(0.001)

    def until(self, client: Client, part: bytes) -> bytes:
        """Read up to this part; the next call begins behind it."""
        self.wait(lambda: part in client.data, repr(part))
        before, _, client.data = client.data.partition(part)
        return before

    @property
    def session(self) -> Session:
        (session,) = self.here.engine.sessions.values()
        return session

    @property
    def owners(self) -> tuple[Owner, Owner]:
        return self.here.owner, self.there.owner

    # --- a move -----------------------------------------------------------------------

    def move(self, before_start: Optional[Callable[[], None]] = None) -> None:
        """Move all sessions to the other worker, as when a worker is stopped.

        :param before_start: called when they are restored, but not started.
        """
        here, there = self.here, self.there
        here.server.draining = True
        for connection in list(here.server._open):  # release_idle(), but in this turn
            connection.release()
        arrived = [
            restore(there.server, there.engine, state, descriptors)
            for state, descriptors in self._taken()
        ]
        if before_start is not None:
            before_start()
        there.server.draining = False
        for one in arrived:
            one.start()
        self.here, self.there = there, here
        self.turn()

    def _taken(self) -> Iterator[tuple[Any, list[int]]]:
        """The sessions that were taken out, as the router passes them on."""
        here = self.here
        deadline = time.monotonic() + PATIENCE
        for sid in list(here.engine.sessions):
            while sid in here.engine.sessions:
                try:
                    taken = Leaving(here.server).take_out(here.engine, sid)
                except NotMovable as error:
                    assert time.monotonic() < deadline, error
                    self.turn(1)
                    continue
                yield pass_on(json.dumps(taken.state), taken.descriptors)

    def _route(self) -> None:
        """Connections that are handed back go to the worker that has the sessions now."""
        for descriptor, prefix in self.there.handed_back:
            self.here.take(descriptor, prefix)
        self.there.handed_back.clear()

    # --- the end ----------------------------------------------------------------------

    def close(self) -> None:
        """Close all clients, and check that nothing of them is left."""
        for client in self.clients:
            client.sock.close()
        deadline = time.monotonic() + PATIENCE
        while not (self.here.is_left() and self.there.is_left()):
            for worker in (self.here, self.there):
                for session in list(worker.engine.sessions.values()):
                    if not session.closed:
                        session.close(abort=True)
                    worker.engine.forget(session.sid)
                    session.end()  # no poll comes any more
            self.turn(1)
            left = [(w.server.connections, w.due) for w in (self.here, self.there)]
            assert time.monotonic() < deadline, left


def pass_on(text: str, descriptors: list[int]) -> tuple[Any, list[int]]:
    """Pass a state through JSON, and its descriptors through a socket."""
    if not descriptors:
        return json.loads(text), []
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        socket.send_fds(one, [b"x"], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        received = socket.recv_fds(other, 1, len(descriptors))[1]
    return json.loads(text), list(received)


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """The opcodes and payloads of complete frames of a server."""
    found = []
    while data:
        opcode, length, at = data[0] & 15, data[1], 2
        if length == 126:
            length, at = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, at = int.from_bytes(data[2:10], "big"), 10
        assert len(data) >= at + length, "a frame is cut short"
        found.append((opcode, data[at : at + length]))
        data = data[at + length :]
    return found


@contextmanager
def workers(kind: str, **options: Any) -> Iterator[Pair]:
    pair = Pair(kind, **options)
    try:
        yield pair
    finally:
        pair.close()
