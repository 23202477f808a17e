"""How a worker on eventlet receives from the relay: in a greenlet."""

from __future__ import annotations

from typing import Any

import zmq

from .hearing import Deliver
from .subscriber import Wait, WaitingSubscriber


class GreenSubscriber(WaitingSubscriber):
    """Waits among eventlet's greenlets.

    One listener of the hub and one timer serve many waits: to make them for each message takes
    longer than the rest of receiving a message that no client here gets.
    """

    _hub: Any = None
    #: The hub's, as long as something to receive is waited for, or was a short while ago.
    _listener: Any = None
    #: Ends a wait when something else is due.
    _timer: Any = None
    #: Resumes the greenlet while it waits; else ``None``.
    _go_on: Any = None

    def run(self, deliver: Deliver) -> None:
        # Workers of other modes import this module, too, without eventlet. An import for each wait
        # would take a microsecond.
        import eventlet
        from eventlet import hubs
        from greenlet import getcurrent

        self._sleep, self._get_hub = eventlet.sleep, hubs.get_hub
        self._resume = getcurrent().switch
        try:
            super().run(deliver)
        finally:
            self._leave_hub()

    def _wait(self, wait: Wait) -> None:
        if not wait.readable:
            self._sleep(wait.seconds)
            return
        hub = self._get_hub()
        if hub is not self._hub:  # the application may have chosen another one
            self._leave_hub()
            self._hub = hub
        if self._listener is None:
            descriptor = self._socket.getsockopt(zmq.FD)
            self._listener = hub.add(hub.READ, descriptor, self._is_readable, self._lost, None)
        if self._timer is None:
            # The time that it is set to does not change: see Subscriber._receive.
            self._timer = hub.schedule_call_global(max(wait.seconds, 0.0), self._is_due)
        self._go_on = self._resume
        try:
            hub.switch()
        finally:
            self._go_on = None

    def _is_readable(self, _descriptor: int) -> None:
        if self._go_on is None:
            self._unwatch()  # else the hub would call again and again meanwhile
        else:
            self._go_on()

    def _is_due(self) -> None:
        self._timer = None
        if self._go_on is not None:
            self._go_on()

    def _leave_hub(self) -> None:
        self._unwatch()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _unwatch(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._hub.remove(listener)

    def _lost(self, *_: Any) -> None:
        self._listener = None  # libzmq's descriptor was closed
