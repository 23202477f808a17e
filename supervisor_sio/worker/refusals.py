"""What clients of this worker did wrong, counted by its reason."""

from __future__ import annotations

import logging

from ..common.refusals import Refusals

#: But for messages that mean nothing, the session or the connection has ended.
refusals = Refusals(logging.getLogger("supervisor_sio.worker"))

PROTOCOL, TOO_SLOW, FAILED = "protocol error", "too slow", "internal error"
WRONG_ARGUMENTS = "wrong arguments for a handler"
NO_ANSWER = "no answer to call()"
#: Those that `sio status` shows as protocol errors.
MALFORMED = (PROTOCOL, WRONG_ARGUMENTS)
