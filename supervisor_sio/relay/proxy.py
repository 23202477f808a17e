"""The relay itself: libzmq's proxy between XSUB and XPUB, in a native thread.

Its listening sockets belong to supervisord: after a restart, publishers and subscribers find the
next relay at the same path.
"""

from __future__ import annotations

import logging
import os
import struct
import sys
import threading
import time
from typing import Optional

import zmq

from ..common.limits import RELAY_HIGH_WATER, RELAY_WAITING

logger = logging.getLogger("supervisor_sio.relay")

#: Prefix of the relay's first message to each subscriber, before the time when the relay began.
WELCOME = b"\0relay\0"
_TIME = struct.Struct("!d")

#: Seconds that subscribers have to reconnect before publishers may: messages that were queued while
#: there was no relay must not be dropped for lack of subscribers.
_SUBSCRIBERS_FIRST = 0.2


def read_welcome(data: bytes) -> float:
    """When the relay began, in seconds of the host's monotonic clock.

    :raises ValueError: when it is not a welcome.
    """
    try:
        (began,) = _TIME.unpack(data[len(WELCOME) :])
    except struct.error as error:
        raise ValueError(f"not a relay's welcome: {error}") from None
    return float(began)


class Relay:
    """The relay's thread, which starts with the object; ``close`` ends it.

    :param xsub_fd: listening descriptor for ``xsub`` (an ``ipc://`` path); the relay owns it from
        now on. The same holds for ``xpub_fd``.
    """

    def __init__(self, xsub: str, xsub_fd: int, xpub: str, xpub_fd: int) -> None:
        self._context = zmq.Context()
        self._backend = self._listen(zmq.XPUB, xpub, xpub_fd)
        control = self._context.socket(zmq.PAIR)
        control.bind("inproc://control")
        self._control = self._context.socket(zmq.PAIR)
        self._control.connect("inproc://control")
        self._received = 0
        self._asked = False
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(control, xsub, xsub_fd), name="relay", daemon=True
        )
        self._thread.start()

    def _listen(self, kind: int, path: str, descriptor: int) -> zmq.Socket[bytes]:
        sock = self._context.socket(kind)
        sock.setsockopt(zmq.SNDHWM, RELAY_WAITING if kind == zmq.XPUB else RELAY_HIGH_WATER)
        sock.setsockopt(zmq.RCVHWM, RELAY_HIGH_WATER)
        sock.setsockopt(zmq.LINGER, 0)
        if kind == zmq.XPUB:
            sock.setsockopt(zmq.XPUB_WELCOME_MSG, WELCOME + _TIME.pack(time.monotonic()))
        sock.setsockopt(zmq.USE_FD, descriptor)
        sock.bind(f"ipc://{path}")
        return sock

    def _run(self, control: zmq.Socket[bytes], xsub: str, xsub_fd: int) -> None:
        sockets = [self._backend, control]
        try:
            if self._closing.wait(_SUBSCRIBERS_FIRST):
                os.close(xsub_fd)
            else:
                frontend = self._listen(zmq.XSUB, xsub, xsub_fd)
                sockets.append(frontend)
                zmq.proxy_steerable(frontend, self._backend, None, control)
        except zmq.ZMQError:
            logger.exception("the relay stopped")
        finally:
            for sock in sockets:
                sock.close(0)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def received(self) -> int:
        """Messages since the start, as of the call before, so that it never waits for the proxy."""
        answer: Optional[list[bytes]] = None
        if self._asked:
            try:
                answer = self._control.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:  # not yet, or closed
                return self._received
            self._asked = False
        if answer is not None:
            # Eight 64-bit counters: messages and bytes, in and out, of either side
            # (zmq_proxy_steerable(3)).
            self._received = int.from_bytes(answer[0], sys.byteorder)
        self._asked = self._command(b"STATISTICS")
        return self._received

    def _command(self, word: bytes) -> bool:
        """Send a command. Return whether the proxy gets it; it does not after it has ended."""
        try:
            self._control.send(word, zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def close(self) -> None:
        self._control.setsockopt(zmq.LINGER, 0)
        self._closing.set()
        self._command(b"TERMINATE")
        self._thread.join(2)
        self._control.close()
        if not self._thread.is_alive():
            self._context.term()
