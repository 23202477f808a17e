from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Optional

import pytest

from supervisor_sio.ctlplugin import make_ctlplugin
from supervisor_sio.supervisorctl.plugin import SioControllerPlugin


class Controller:
    """As much of supervisorctl as shows what the plugin says."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.exitstatus = 0
        self.stdout = io.StringIO()
        self.options = SimpleNamespace(serverurl="http://127.0.0.1:9001", plugins=[])

    def output(self, line: str) -> None:
        self.said.append(line)

    def complete(self, text: str, state: int, line: Optional[str] = None) -> Optional[str]:
        return None


@pytest.mark.parametrize(
    ("argument", "error"),
    [
        ("stauts", "unknown command: sio stauts, did you mean sio status?"),
        ("xyzzy", "unknown command: sio xyzzy, see: help sio"),
        ("drain", "sio drain needs NAME ..."),
        ("undrain --json", "sio undrain needs NAME ..."),
        ("reload-tls now", "unexpected argument now; usage: sio reload-tls [--json]"),
        ("sockets --limit 0", "--limit needs a number from 1 to 10000, not 0"),
        ("sockets --limit ten --json", "--limit needs a number from 1 to 10000, not ten"),
        ("emit news hello", "not JSON: hello; a string needs its quotes, as in '\"hello\"'"),
    ],
)
def test_wrong_usage_is_one_line_and_a_status_of_its_own(argument: str, error: str) -> None:
    controller = Controller()
    plugin = make_ctlplugin(controller)
    assert isinstance(plugin, SioControllerPlugin)
    plugin.do_sio(argument)
    if "--json" in argument:
        assert [json.loads(line) for line in controller.said] == [{"error": error}]
    else:
        assert controller.said == [f"Error: {error}"]
    assert controller.exitstatus == 2


def test_help_is_asked_of_all_plugins_and_given_by_one() -> None:
    controller = Controller()
    other = SimpleNamespace()
    controller.options.plugins.append(other)
    plugin = make_ctlplugin(controller)
    for topic in ("sio", "sio top"):
        getattr(other, f"help_{topic}")()
    assert controller.said == []
    plugin.do_help("sio top")
    assert controller.said[0] == "usage: sio top [--json]"
    plugin.do_help("status")
    assert "status" not in controller.said[-1] and controller.exitstatus == 0
