"""How long a client may take for the body of its request, wherever that is read."""

from __future__ import annotations

from ..common.limits import BODY_GRACE_SECONDS, BODY_RATE, STALLED_SECONDS


def patience(received: int, waited: float) -> float:
    """Seconds that the next of it may take; not above 0 when the client is too slow.

    :param received: bytes that have come.
    :param waited: seconds for which the client let us wait for them.
    """
    return min(BODY_GRACE_SECONDS + received / BODY_RATE - waited, STALLED_SECONDS)
