"""The pump between a TLS client and its worker, with real sockets at both ends."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import psutil
import pytest

from supervisor_sio.common.certificates import make_context
from supervisor_sio.router import tls
from supervisor_sio.router.tls import Terminator


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    directory: Path = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert],
        check=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return make_context(str(cert), str(key))


class Harness:
    """One connection: ``client`` speaks TLS in threads, ``worker`` is the other end."""

    def __init__(self, context: ssl.SSLContext, timeout: float = 5) -> None:
        self.terminator = Terminator(context, timeout)
        self.failures = 0
        self.raw, self.sock = _tcp_pair()
        self.raw.settimeout(20)
        self._established: asyncio.Future[socket.socket] = (
            asyncio.get_running_loop().create_future()
        )
        self.terminator.start(self.sock, self._established.set_result, self._fail)

    def _fail(self) -> None:
        self.failures += 1

    async def connect(self, early: bytes = b"") -> None:
        def handshake() -> ssl.SSLSocket:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            client = context.wrap_socket(self.raw)
            if early:
                client.sendall(early)
            return client

        self.client = await self.thread(handshake)
        self.worker = await asyncio.wait_for(self._established, 20)
        self.worker.settimeout(20)

    def thread(self, call: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(None, call, *arguments)


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


def read_all(sock: socket.socket, pause: float = 0, chunk: int = 65536) -> bytes:
    data = b""
    while more := sock.recv(chunk):
        data += more
        time.sleep(pause)
    return data


@pytest.fixture
def descriptors() -> Iterator[Callable[[], int]]:
    """The number of descriptors opened since the start."""
    gc.collect()  # what an earlier test has left must not close in between
    before = psutil.Process().num_fds()
    yield lambda: psutil.Process().num_fds() - before


async def until(condition: Callable[[], bool], timeout: float = 5) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_all_bytes_arrive_both_ways(context: ssl.SSLContext) -> None:
    async def scenario() -> None:
        harness = Harness(context)
        await harness.connect(early=b"early ")
        there, back = os.urandom(3_000_000), os.urandom(5_000_000)
        sent = harness.thread(harness.client.sendall, there)
        answered = harness.thread(harness.worker.sendall, back)

        def exactly(sock: socket.socket, count: int) -> bytes:
            data = b""
            while len(data) < count:
                data += sock.recv(65536)
            return data

        heard, got, *_ = await asyncio.gather(
            harness.thread(exactly, harness.worker, len(there) + 6),
            harness.thread(exactly, harness.client, len(back)),
            sent,
            answered,
        )
        assert heard == b"early " + there and got == back
        harness.client.close()
        assert await harness.thread(harness.worker.recv, 1) == b""
        harness.worker.close()

    asyncio.run(scenario())


def test_a_request_in_one_packet_with_the_end_of_the_handshake_is_read(
    context: ssl.SSLContext,
) -> None:
    """Nothing comes after it that would make the socket readable again."""

    async def scenario() -> None:
        harness = Harness(context)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ours.check_hostname, ours.verify_mode = False, ssl.CERT_NONE
        ours.minimum_version = ssl.TLSVersion.TLSv1_3  # before, the server has the last word
        client = ours.wrap_bio(incoming, outgoing)

        def connect() -> None:
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    harness.raw.sendall(outgoing.read())
                    incoming.write(harness.raw.recv(65536))
            client.write(b"request")
            harness.raw.sendall(outgoing.read())

        await harness.thread(connect)
        worker = await asyncio.wait_for(harness._established, 20)
        worker.settimeout(20)
        assert await harness.thread(worker.recv, 100) == b"request"
        harness.raw.close()
        assert await harness.thread(worker.recv, 1) == b""
        worker.close()

    asyncio.run(scenario())


def test_the_last_words_arrive_and_the_end_is_one_of_tls(context: ssl.SSLContext) -> None:
    async def scenario() -> None:
        harness = Harness(context)
        await harness.connect()
        harness.client.suppress_ragged_eofs = False  # an end without close_notify would raise
        harness.client.sendall(b"more than the worker reads" * 1000)
        words = os.urandom(2_000_000)

        def say() -> None:
            harness.worker.sendall(words)
            harness.worker.close()

        said = harness.thread(say)
        assert await harness.thread(read_all, harness.client) == words
        await said
        harness.client.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("side", ["client", "worker"])
def test_who_does_not_read_is_given_up(
    context: ssl.SSLContext,
    descriptors: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    side: str,
) -> None:
    monkeypatch.setattr(tls, "TLS_STALL_TIMEOUT", 0.3)
    monkeypatch.setattr(tls, "TLS_LINGER", 0.1)

    async def scenario() -> None:
        harness = Harness(context)
        await harness.connect()
        writer = harness.worker if side == "client" else harness.client

        def write() -> None:
            with pytest.raises(OSError):
                while True:
                    writer.send(b"x" * 65536)

        await harness.thread(write)
        harness.worker.close()
        # The client's own is left, and what the event loop has.
        await until(lambda: descriptors() <= 1 + 3)
        harness.client.close()

    asyncio.run(scenario())


@pytest.mark.tries(3)
def test_who_reads_slowly_and_steadily_gets_all(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "TLS_STALL_TIMEOUT", 0.5)

    async def scenario() -> None:
        harness = Harness(context)
        harness.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        await harness.connect()
        words = os.urandom(6_000_000)

        def say() -> None:
            harness.worker.sendall(words)
            harness.worker.close()

        began = time.monotonic()
        said = harness.thread(say)
        assert await harness.thread(read_all, harness.client, 0.005, 16384) == words
        await said
        assert time.monotonic() - began > 1.0
        harness.client.close()

    asyncio.run(scenario())


def test_a_handshake_that_does_not_end_costs_nothing_for_long(
    context: ssl.SSLContext, descriptors: Callable[[], int]
) -> None:
    async def scenario() -> None:
        slow, garbage, gone = (Harness(context, timeout=0.2) for _ in range(3))
        slow.raw.sendall(b"\x16\x03\x01")
        garbage.raw.sendall(b"\x16 garbage" * 100)
        gone.raw.close()
        await until(lambda: [h.failures for h in (slow, garbage, gone)] == [1, 1, 1])
        assert descriptors() <= 2 + 3  # two clients of this test, and the event loop's
        slow.raw.close()
        garbage.raw.close()

    asyncio.run(scenario())


def test_no_client_makes_the_server_sign_again(context: ssl.SSLContext) -> None:
    assert context.options & ssl.OP_NO_RENEGOTIATION
