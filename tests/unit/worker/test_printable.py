from __future__ import annotations

import logging

import pytest

from supervisor_sio.worker.printable import PRINTABLE


def test_what_a_client_sent_stays_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("test_printable")
    logger.addFilter(PRINTABLE)
    logger.error("Invalid session %s", "a\n2026 INFO all is well\x1b[31m\x9b1m\u2028 größer %s")
    logger.error("nothing %s to %d escape", "here", 7)
    assert [record.getMessage() for record in caplog.records] == [
        "Invalid session a\\n2026 INFO all is well\\x1b[31m\\x9b1m\\u2028 größer %s",
        "nothing here to 7 escape",
    ]
