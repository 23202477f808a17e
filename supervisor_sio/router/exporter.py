"""Serve ``metrics`` of ``[rpcinterface:sio]`` over HTTP, in a thread with its own loop.

So clients that are slow, send garbage, or ask without pause do not delay the router's loop.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
import time
from typing import Any, NamedTuple, Optional

from prometheus_client import make_wsgi_app

from ..common.limits import EXPORTER_CONNECTIONS, EXPORTER_HEAD_BYTES
from .health import ailment
from .metrics import Metrics

logger = logging.getLogger("supervisor_sio.router")

#: Seconds from a connection's start to its end.
_PATIENCE = 5.0

_BACKLOG = 128

#: Both threads share the interpreter's lock. After making a page, the thread pauses this many times
#: as long, so that it takes at most a fifth of the time.
_REST = 4.0

_REQUEST_LINE = re.compile(r"([A-Z]+) (\S+) HTTP/1\.[01]")


class BadRequest(Exception):
    """The client did not send an HTTP request."""


class Request(NamedTuple):
    method: str
    path: str
    query: str
    #: Names in lower case; repeated fields are joined with commas.
    headers: dict[str, str]


class Answer(NamedTuple):
    status: str
    headers: list[tuple[str, str]]
    body: bytes

    def encode(self, with_body: bool) -> bytes:
        fields = [*self.headers, ("Content-Length", str(len(self.body))), ("Connection", "close")]
        lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in fields), "", ""]
        return "\r\n".join(lines).encode("latin-1") + (self.body if with_body else b"")


def parse_request(head: bytes) -> Request:
    """Parse a request line and header fields, with the empty line after them.

    :raises BadRequest: when they are malformed.
    """
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise BadRequest
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not value.isprintable():
            raise BadRequest
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    path, _, query = match[2].partition("?")
    return Request(match[1], path, query, headers)


def plain(status: str, text: str, *headers: tuple[str, str]) -> Answer:
    return Answer(
        status, [("Content-Type", "text/plain; charset=utf-8"), *headers], f"{text}\n".encode()
    )


class Pages:
    """Makes the pages ``/metrics`` and ``/healthz``."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._app: Any = make_wsgi_app(metrics.registry)

    def answer(self, request: Request) -> Answer:
        if request.path not in ("/metrics", "/healthz"):
            return plain("404 Not Found", "only /metrics and /healthz exist")
        if request.method not in ("GET", "HEAD"):
            return plain("405 Method Not Allowed", "use GET or HEAD", ("Allow", "GET, HEAD"))
        if request.path == "/healthz":
            reason = ailment(self._metrics.snapshot, time.monotonic())
            return plain("503 Service Unavailable", reason) if reason else plain("200 OK", "ok")
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "HTTP_ACCEPT_ENCODING": request.headers.get("accept-encoding", ""),
        }
        try:
            return self._call({**environ, "HTTP_ACCEPT": request.headers.get("accept", "")})
        except Exception:
            # The library raises on some values of Accept.
            return self._call(environ)

    def _call(self, environ: dict[str, str]) -> Answer:
        started: list[Any] = []
        parts = self._app(environ, lambda *arguments: started.extend(arguments))
        return Answer(started[0], started[1], b"".join(parts))


class Exporter:
    """Serves from :meth:`start` to :meth:`close`.

    :param listener: the listening socket, which this object closes.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.metrics = Metrics()
        self._pages = Pages(self.metrics)
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._begun = threading.Event()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._closing: asyncio.Event
        self._turn: asyncio.Lock
        #: Oldest first.
        self._connections: dict[Any, None] = {}

    def start(self) -> None:
        self._thread.start()
        self._begun.wait()

    def close(self) -> None:
        """Stop accepting; new connections are for the next router."""
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._closing.set)
            except RuntimeError:  # the loop has ended by itself
                pass
            self._thread.join(1)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            logger.exception("metrics are no longer served")
        finally:
            self._begun.set()

    async def _serve(self) -> None:
        self._closing, self._turn = asyncio.Event(), asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(
            self._connected, sock=self._listener, backlog=_BACKLOG, limit=EXPORTER_HEAD_BYTES
        )
        self._begun.set()
        await self._closing.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._connections[task] = None
        if len(self._connections) > EXPORTER_CONNECTIONS:
            oldest: Any = next(iter(self._connections))
            del self._connections[oldest]
            oldest.cancel()
        try:
            await asyncio.wait_for(self._exchange(reader, writer), _PATIENCE)
        except (asyncio.TimeoutError, asyncio.IncompleteReadError, OSError):
            pass
        except asyncio.CancelledError:
            pass  # cancelled by a newer connection or close(); asyncio would log it
        finally:
            self._connections.pop(task, None)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with_body = True
        try:
            request = parse_request(await reader.readuntil(b"\r\n\r\n"))
            with_body = request.method != "HEAD"
            answer = await self._in_turn(request)
        except (BadRequest, asyncio.LimitOverrunError):
            answer = plain("400 Bad Request", "this is not an HTTP request")
        writer.transport.set_write_buffer_limits(0)  # so that drain() waits until all is written
        writer.write(answer.encode(with_body))
        await writer.drain()
        # Wait for the client to close: closing with unread bytes would reset the connection, and
        # the client could lose the answer.
        writer.write_eof()
        while await reader.read(EXPORTER_HEAD_BYTES):
            pass

    async def _in_turn(self, request: Request) -> Answer:
        if request.path == "/healthz":
            # Answered out of turn: it is cheap, and a late answer may count as a failed check.
            return self._answer(request)
        async with self._turn:
            began = time.monotonic()
            try:
                return self._answer(request)
            finally:
                await asyncio.sleep((time.monotonic() - began) * _REST)

    def _answer(self, request: Request) -> Answer:
        try:
            return self._pages.answer(request)
        except Exception:
            logger.exception("a page of metrics could not be made")
            return plain("500 Internal Server Error", "see the router's log")
