"""What clients did wrong, as this worker counts and logs it."""

from __future__ import annotations

import logging

from ..common.refusals import Refusals

#: But for messages that mean nothing, their session or connection has ended.
refusals = Refusals(logging.getLogger("supervisor_sio.worker"))
