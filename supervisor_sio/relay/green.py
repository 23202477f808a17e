"""A worker hears the relay: among eventlet's greenlets."""

from __future__ import annotations

import zmq

from .subscriber import TICK, Subscriber


class GreenSubscriber(Subscriber):
    """Waits among eventlet's greenlets."""

    def _wait(self, sock: zmq.Socket[bytes], timeout: float) -> None:
        from eventlet import hubs

        try:
            hubs.trampoline(
                sock.getsockopt(zmq.FD),
                read=True,
                timeout=max(timeout, 0.0),
                timeout_exc=TimeoutError,
            )
        except TimeoutError:
            pass

    def _breathe(self) -> None:
        import eventlet

        eventlet.sleep()

    def _pause(self) -> None:
        import eventlet

        eventlet.sleep(TICK)
