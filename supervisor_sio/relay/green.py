"""A worker hears the relay: among eventlet's greenlets."""

from __future__ import annotations

import zmq

from .subscriber import Wait, WaitingSubscriber


class GreenSubscriber(WaitingSubscriber):
    """Waits among eventlet's greenlets."""

    def _wait(self, wait: Wait) -> None:
        import eventlet
        from eventlet import hubs

        if not wait.readable:
            eventlet.sleep(wait.seconds)
            return
        try:
            hubs.trampoline(
                self._socket.getsockopt(zmq.FD),
                read=True,
                timeout=max(wait.seconds, 0.0),
                timeout_exc=TimeoutError,
            )
        except TimeoutError:
            pass
