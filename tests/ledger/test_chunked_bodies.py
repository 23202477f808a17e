"""Bodies without end: they hold nobody up, and take no memory."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster, wait_until

from supervisor_sio.common.limits import BODY_GRACE_SECONDS

from .victim import MB, Echoes, PeakMemory


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Cluster:
    return make_module_cluster(workers=1).start()


HEAD = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def pour(port: int, start: bytes, more: bytes, most_bytes: int) -> tuple[int, bytes]:
    """Send ``start``, and ``more`` again and again, until the connection ends.

    How many bytes it took, and the answer.
    """
    sent, got = 0, b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(start)
        with contextlib.suppress(ConnectionError):
            while sent < most_bytes:
                sock.sendall(more)
                sent += len(more)
                with contextlib.suppress(BlockingIOError):
                    got += sock.recv(65536, socket.MSG_DONTWAIT)
        with contextlib.suppress(OSError):  # it may not even be connected any more
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                got += data
    return sent, got


@contextlib.contextmanager
def in_background(count: int, work: Callable[[threading.Event], None]) -> Iterator[None]:
    ended = threading.Event()
    threads = [threading.Thread(target=work, args=(ended,), daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield
    ended.set()
    for thread in threads:
        thread.join(30)


@pytest.mark.tries(3)
@pytest.mark.parametrize("path", [b"/nowhere", b"/socket.io/?EIO=4&transport=polling&sid=none"])
def test_one_byte_chunks_after_a_refused_request_do_not_hang_the_worker(
    cluster: Cluster, path: bytes
) -> None:
    def attack(ended: threading.Event) -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                pour(cluster.port, HEAD % path, b"1\r\nx\r\n" * 10_000, 10 * MB)

    with Echoes(cluster.port) as others, in_background(5, attack):
        time.sleep(4)
    assert len(others.latencies) > 20
    assert others.percentile(0.9) < 0.2, f"{others.percentile(0.9):.3f} s"
    wait_until(cluster.workers, 5, "it is ready")


@pytest.mark.parametrize(
    "start, more",
    [
        (HEAD % b"/upload" + b"1", b"1" * 65536),
        (HEAD % b"/upload" + b"1;", b"x" * 65536),
        (HEAD % b"/upload" + b"1\r\nx", b"x" * 65536),
        (HEAD % b"/upload" + b"0\r\n", b"x" * 65536),
        (HEAD % b"/upload" + b"0\r\n", b"A: b\r\n" * 10_000),
        (HEAD % b"/nowhere" + b"1", b"1" * 65536),
    ],
    ids=["size", "extension", "chunk-end", "trailer", "trailers", "size-unread"],
)
def test_a_line_without_end_takes_no_memory(cluster: Cluster, start: bytes, more: bytes) -> None:
    (row,) = cluster.workers()
    with PeakMemory(row["pid"]) as memory:
        sent, answer = pour(cluster.port, start, more, 200 * MB)
    assert memory.grown < 8 * MB
    assert sent < 200 * MB or answer, "it was read to its end"
    assert b"HTTP/1.1 200 " not in answer


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
def test_a_body_that_nobody_reads_ends_the_connection(cluster: Cluster, framing: bytes) -> None:
    """The client has its answer all the same."""
    start = b"POST /nowhere HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n"
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", cluster.port), timeout=20) as sock:
        sock.sendall(start + chunk * 3)
        assert sock.recv(65536).startswith(b"HTTP/1.1 404 ")
        while sock.recv(65536):
            pass
    assert time.monotonic() - began < BODY_GRACE_SECONDS - 5


def test_a_short_body_that_nobody_reads_keeps_the_connection(cluster: Cluster) -> None:
    unread = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000
    chunked = HEAD % b"/nowhere" + b"4000\r\n" + b"x" * 0x4000 + b"\r\n0\r\nA: b\r\n\r\n"
    with socket.create_connection(("127.0.0.1", cluster.port), timeout=20) as sock:
        sock.sendall(
            unread + chunked + b"GET /pid HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        got = b""
        while data := sock.recv(65536):
            got += data
    assert got.count(b"HTTP/1.1 404 ") == 2 and got.count(b"HTTP/1.1 200 ") == 1
