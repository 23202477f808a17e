"""What clients did wrong, as this worker counts and logs it."""

from __future__ import annotations

import logging

from ..common.refusals import Refusals

#: But for events that a handler does not take, their session or connection has ended.
refusals = Refusals(logging.getLogger("supervisor_sio.worker"))
