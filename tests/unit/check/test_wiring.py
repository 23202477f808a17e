from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from supervisor import options as supervisor_options
from supervisor.options import ServerOptions, UnhosedConfigParser

from supervisor_sio.check.wiring import OPTIONS
from unit.check.deployment import Deployment


def test_the_options_are_those_that_supervisord_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[tuple[str, str]] = set()

    class Recorder(UnhosedConfigParser):  # type: ignore[misc]
        def get(self, section: str, option: str, **options: Any) -> Any:
            asked.add((section.partition(":")[0], option))
            return super().get(section, option, **options)

    monkeypatch.setattr(supervisor_options, "UnhosedConfigParser", Recorder)
    deployment = Deployment(tmp_path)
    deployment.set("include", files="x.conf")
    deployment.set("inet_http_server", port="1")
    deployment.set("fcgi-program:f", command="f", socket="tcp://localhost:1")
    deployment.set("group:g", programs="workers")
    deployment.lines()
    options = ServerOptions()
    options.here = str(tmp_path)
    options.configfile = deployment.path
    options.read_config(deployment.path)
    for kind, known in OPTIONS.items():
        assert {option for section, option in asked if section == kind} <= known
    assert {kind for kind, _ in asked} >= set(OPTIONS) - {"supervisorctl"}
