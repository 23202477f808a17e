"""How long a client may take to send the body of its request; the same in all modes."""

from __future__ import annotations

from ..common.limits import BODY_GRACE_SECONDS, BODY_RATE, STALLED_SECONDS


def patience(received: int, waited: float) -> float:
    """Seconds to wait for the next bytes; 0 or less if the client is too slow.

    :param received: bytes of the body received so far.
    :param waited: seconds that the worker has waited for them.
    """
    return min(BODY_GRACE_SECONDS + received / BODY_RATE - waited, STALLED_SECONDS)
