"""How many descriptors the router reserves, and how many connections may wait. Pure."""

from __future__ import annotations

#: Descriptors that clients may not use: for the router itself, and for ZeroMQ, which ends the
#: process when it gets none. Further ones are reserved for each worker and for the metrics port.
RESERVE = 64
_FOR_WORKER = 5
_FOR_METRICS = 128
#: For a listener in place of a worker, with a context of ZeroMQ.
_FOR_LISTENER = 16


def reserve(workers: int, metrics: bool, handshakes: int, listeners: int = 0) -> int:
    """The number of descriptors that new clients may not use.

    :param workers: number of workers' channels.
    :param metrics: whether there is a metrics port.
    :param handshakes: number of TLS handshakes that may be in progress.
    :param listeners: number of listeners in place of workers that have ended.
    """
    # Each handshake needs two more when it ends.
    own = RESERVE + _FOR_WORKER * workers + _FOR_METRICS * metrics + _FOR_LISTENER * listeners
    return own + 2 * handshakes


def affordable(max_pending: int, limit: int, tls: bool) -> int:
    """The part of ``max_pending`` that is possible with ``limit`` descriptors."""
    # max_pending clients may be sending a request line while as many wait for a worker. With TLS
    # each has three descriptors, and two more are reserved.
    each = 5 if tls else 2
    return min(max_pending, max(1, (limit - RESERVE) // each))
