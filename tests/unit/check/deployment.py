"""A configuration that tests change."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor_sio.check import Finding, judge, resources
from supervisor_sio.check.host import Host
from supervisor_sio.check.reading import read

ROOT = Path(__file__).parents[3]
BIN = str(Path(sys.executable).parent)

#: The interpreter that the installed command has.
PYTHON = Path(BIN, "supervisor-sio").read_text().partition("\n")[0][len("#!") :]

ME = os.getuid()
NOBODY = pwd.getpwnam("nobody")
as_root = pytest.mark.skipif(ME != 0, reason="gives files to other users")

HOST = Host(uid=ME, descriptors=65536, somaxconn=4096, first_port=1024, path=("/usr/bin", BIN))


def host_with(**changes: Any) -> Host:
    return Host(**{**vars(HOST), **changes})


@pytest.fixture
def free_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever other programs of this host listen at."""
    monkeypatch.setattr(resources, "listen_fault", lambda place: None)


class Deployment:
    """A sound configuration, until a test changes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = str(directory / "supervisord.conf")
        (directory / "myapp.py").touch()
        self.sections: dict[str, dict[str, str]] = {
            "supervisord": {"logfile": "/dev/null", "pidfile": "%(here)s/pid"},
            "unix_http_server": {"file": "%(here)s/s.sock"},
            "supervisorctl": {"serverurl": "unix://%(here)s/s.sock"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": (
                    "supervisor.rpcinterface:make_main_rpcinterface"
                )
            },
            "rpcinterface:sio": {
                "supervisor.rpcinterface_factory": (
                    "supervisor_sio.rpcinterface:make_rpcinterface"
                ),
                "listen": f"unix:{directory}/port.sock",
            },
            "ctlplugin:sio": {"supervisor.ctl_factory": "supervisor_sio.ctlplugin:make_ctlplugin"},
            "eventlistener:sio": {"command": "supervisor-sio router", "events": "PROCESS_STATE"},
            "program:workers": {
                "command": "supervisor-sio worker myapp:app",
                "directory": "%(here)s",
                "process_name": "%(program_name)s_%(process_num)02d",
                "numprocs": "2",
                "stopwaitsecs": "15",
            },
        }

    def set(self, section: str, **options: str | None) -> Deployment:
        into = self.sections.setdefault(section, {})
        for option, value in options.items():
            if value is None:
                into.pop(option, None)
            else:
                into[option] = value
        return self

    def rename(self, section: str, name: str) -> Deployment:
        self.sections[name] = self.sections.pop(section)
        return self

    def include(self, *sections: str, name: str = "more.conf", files: str = "*.conf.in") -> Path:
        """Move sections to a file that is included."""
        included = self.directory / f"{name}.in"
        included.write_text(_text({section: self.sections.pop(section) for section in sections}))
        self.sections["include"] = {"files": files}
        return included

    def findings(self, host: Host = HOST) -> list[Finding]:
        """The findings, without the warnings about root."""
        return [
            finding
            for finding in self.judge(host)
            if "runs as root and reads input" not in finding.text
        ]

    def judge(self, host: Host = HOST) -> list[Finding]:
        Path(self.path).write_text(_text(self.sections))
        return judge(read(self.path), host)

    def lines(self, host: Host = HOST) -> list[str]:
        return [str(finding) for finding in self.findings(host)]


def _text(sections: dict[str, dict[str, str]]) -> str:
    return "".join(
        f"[{section}]\n" + "".join(f"{option} = {value}\n" for option, value in options.items())
        for section, options in sections.items()
    )
