"""Counts and logs the faults of this worker's clients."""

from __future__ import annotations

import logging

from ..common.refusals import Refusals

#: Each fault ends the client's session or connection, except an event that a handler refuses.
refusals = Refusals(logging.getLogger("supervisor_sio.worker"))
