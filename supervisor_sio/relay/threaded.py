"""The bridge, and a process that only emits, hear the relay: in a thread."""

from __future__ import annotations

import logging
import time
from typing import Callable, Iterable

import zmq

from . import native
from .message import RelayMessage
from .subscriber import LONGEST_PAUSE, Deaf, Subscriber

logger = logging.getLogger("supervisor_sio.relay")

#: Seconds that the thread of a subscriber may take to end: one delivery.
_STOP_TIMEOUT = 5.0


class ThreadSubscriber(Subscriber):
    """Waits in a thread of its own, from :meth:`start` to :meth:`close`.

    :param deliver: is called in that thread.
    """

    def start(self, deliver: Callable[[RelayMessage], None] = lambda message: None) -> None:
        def run() -> None:
            try:
                for message in self.messages():
                    try:
                        deliver(message)
                    except Exception as error:
                        self._refusals.count("relay-delivery-failed", repr(error))
            except Deaf as error:
                logger.critical("%s", error)
            finally:
                try:
                    self.release()
                finally:
                    self._done = True

        self._done = False
        native.start_thread(run, "relay-subscriber")

    def finish(self, timeout: float) -> None:
        """Stay until everybody has what this process has sent, then leave.

        :param timeout: seconds to stay at most while nobody fetches anything.
        """
        deadline = time.monotonic() + timeout
        while self.receivers is None and time.monotonic() < deadline:
            self._publisher.ask_router({"method": "who"})
            until = time.monotonic() + LONGEST_PAUSE
            while self.receivers is None and time.monotonic() < until:
                time.sleep(0.001)
        missing = self.wait_confirmed(
            self._present_receivers, lambda: max(deadline, self._answered_at + timeout)
        )
        unknown = self.receivers is None and not self._publisher.silent
        if missing:
            logger.error(
                "%d workers have not fetched all that this process has sent: %s",
                len(missing),
                ", ".join(missing[:5]),
            )
        elif unknown:
            logger.error(
                "the router does not answer: "
                "whether the workers have all that this process has sent is not known"
            )
        self._publisher.say_goodbye(confirmed=not missing and not unknown)
        self.stop()

    def _present_receivers(self) -> Iterable[str]:
        """As the router has last said; it is asked again, as one of them may end."""
        self._publisher.ask_router({"method": "who"})
        return self.receivers or ()

    def stop(self) -> None:
        """End the thread; the publisher may be closed after that."""
        self.close()
        self._publisher.probe()  # wakes it, if the relay is there
        until = time.monotonic() + _STOP_TIMEOUT
        while not self._done and time.monotonic() < until:
            time.sleep(0.002)

    def _wait(self, sock: zmq.Socket[bytes], timeout: float) -> None:
        # A poll ends early for close(): it is short.
        sock.poll(int(max(timeout, 0.0) * 1000) + 1)
