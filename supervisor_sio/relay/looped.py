"""How an asyncio process receives from the relay: in callbacks of its loop."""

from __future__ import annotations

import asyncio
from typing import Callable, Optional

import zmq

from .hearing import Deliver
from .subscriber import Deaf, Subscriber


def running_loop() -> Optional[asyncio.AbstractEventLoop]:
    """The asyncio loop of this thread, if one runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class LoopSubscriber(Subscriber):
    """Receives in the thread whose loop runs when it is started.

    libzmq's descriptor signals new messages only once. So everything that has arrived is received
    before the next wait: :meth:`steps` waits only when libzmq has nothing more.
    """

    def start(self, deliver: Deliver, failed: Callable[[Deaf], None]) -> None:
        """Deliver what the others send, until :meth:`stop`.

        :param deliver: called in the loop.
        :param failed: called in the loop when nothing can be received any more.
        """
        self._loop = asyncio.get_running_loop()
        self._descriptor = int(self._socket.getsockopt(zmq.FD))
        self._steps = self.steps(deliver)
        self._failed = failed
        #: Whether the descriptor is watched, and whether something to receive is waited for.
        self._watched = self._waits = False
        #: Ends the wait for something to receive when something else is due.
        self._due: Optional[asyncio.TimerHandle] = None
        self._loop.call_soon(self._go_on)

    def stop(self) -> None:
        """Stop receiving soon; called in any thread, also after the end of the loop."""
        self.close()
        if self._loop.is_running() and running_loop() is not self._loop:
            self._loop.call_soon_threadsafe(self.stop)
            return
        if self._due is not None:
            self._due.cancel()
        if not self._loop.is_closed():
            self._watch(False)
        self.release()

    def _go_on(self) -> None:
        try:
            wait = next(self._steps)
        except StopIteration:
            return
        except Deaf as error:
            self._watch(False)
            self._failed(error)
            return
        self._waits = wait.readable
        if wait.readable:
            self._watch(True)
            if self._due is None:
                # One timer for many messages: its time does not change.
                self._due = self._loop.call_later(wait.seconds, self._is_due)
        elif wait.seconds:
            self._watch(False)  # else the loop would call again and again meanwhile
            self._loop.call_later(wait.seconds, self._go_on)
        else:
            self._loop.call_soon(self._go_on)

    def _watch(self, on: bool) -> None:
        if on and not self._watched:
            self._loop.add_reader(self._descriptor, self._is_readable)
        elif self._watched and not on:
            self._loop.remove_reader(self._descriptor)
        self._watched = on

    def _is_readable(self) -> None:
        if self._waits:
            self._go_on()

    def _is_due(self) -> None:
        self._due = None
        if self._waits:
            self._go_on()
