"""Descriptors: how many the router keeps from clients, and how many clients may wait. Pure."""

from __future__ import annotations

#: Descriptors that are not for clients: what the router itself has open, and ZeroMQ,
#: which ends the process when it gets none. More for each worker, and for those who
#: read the metrics.
RESERVE = 64
_FOR_WORKER = 5
_FOR_METRICS = 128
#: With a context of ZeroMQ each.
_FOR_LISTENER = 16


def reserve(workers: int, metrics: bool, handshakes: int, listeners: int = 0) -> int:
    """Descriptors that new clients do not get.

    :param workers: how many channels of workers there are.
    :param metrics: whether there is a port for them.
    :param handshakes: how many of TLS may be under way.
    :param listeners: to the relay, in the place of workers that have ended.
    """
    # Each handshake may end with two more at the same time.
    own = RESERVE + _FOR_WORKER * workers + _FOR_METRICS * metrics + _FOR_LISTENER * listeners
    return own + 2 * handshakes


def affordable(max_pending: int, limit: int, tls: bool) -> int:
    """How many connections may wait, of ``max_pending``, with ``limit`` descriptors."""
    # Clients in the middle of a request line, and as many for whom there is no worker.
    # With TLS each has three, and two of them are in reserve besides.
    each = 5 if tls else 2
    return min(max_pending, max(1, (limit - RESERVE) // each))
