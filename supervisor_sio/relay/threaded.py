"""How the bridge, and a process that only emits, receive from the relay: in a thread."""

from __future__ import annotations

import logging
import time
from typing import Callable, Iterable

from ..common.blocking import run_blocking
from . import native
from .hearing import FIRST_PAUSE, LONGEST_PAUSE
from .message import RelayMessage
from .subscriber import Deaf, Wait, WaitingSubscriber

logger = logging.getLogger("supervisor_sio.relay")

#: Seconds that the thread of a subscriber may take to end: one delivery.
_STOP_TIMEOUT = 5.0


class ThreadSubscriber(WaitingSubscriber):
    """Waits in a thread of its own, from :meth:`start` to :meth:`close`.

    :param deliver: called in that thread.
    """

    def start(self, deliver: Callable[[RelayMessage], None] = lambda message: None) -> None:
        def deliver_each(message: RelayMessage) -> None:
            try:
                deliver(message)
            except Exception as error:
                self._refusals.count("relay-delivery-failed", repr(error))

        def run() -> None:
            try:
                self.run(deliver_each)
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
        """Wait until all receivers have what this process has sent, then leave.

        :param timeout: seconds to wait at most while no receiver fetches anything.
        """
        deadline, pause = time.monotonic() + timeout, FIRST_PAUSE
        while self.receivers is None and time.monotonic() < deadline:
            self._publisher.ask_router({"method": "who"})
            until = time.monotonic() + pause
            pause = min(2 * pause, LONGEST_PAUSE)  # the relay may not know this socket yet
            while self.receivers is None and time.monotonic() < until:
                time.sleep(0.001)
        missing = run_blocking(
            self.wait_confirmed(
                self._present_receivers,
                lambda: max(deadline, self._answered_at + timeout),
                _sleep,
            )
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
        """The receivers in the router's last answer; the router is asked again, as one may end."""
        self._publisher.ask_router({"method": "who"})
        return self.receivers or ()

    def stop(self) -> None:
        """End the thread; the publisher may be closed after that."""
        self.close()
        self._publisher.probe()  # wakes the thread, if the relay is there
        until = time.monotonic() + _STOP_TIMEOUT
        while not self._done and time.monotonic() < until:
            time.sleep(0.002)

    def _wait(self, wait: Wait) -> None:
        if wait.readable:
            # A poll cannot be interrupted by close(): it is short.
            self._socket.poll(int(max(wait.seconds, 0.0) * 1000) + 1)
        elif wait.seconds:
            time.sleep(wait.seconds)


async def _sleep(seconds: float) -> None:
    time.sleep(seconds)
