from __future__ import annotations

import os
import pwd
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from supervisor import options as supervisor_options
from supervisor.options import ServerOptions, UnhosedConfigParser

from supervisor_sio import cli
from supervisor_sio.check import Finding, judge, run
from supervisor_sio.check.host import (
    ENTER,
    READ,
    WRITE,
    Host,
    User,
    command_fault,
    lets_in,
    obstacle,
    overlap,
    user,
)
from supervisor_sio.check.packages import _shebang
from supervisor_sio.check.reading import Unreadable, default_path, read
from supervisor_sio.check.roles import Role, role_of
from supervisor_sio.check.sections import make_sections
from supervisor_sio.check.wiring import OPTIONS
from supervisor_sio.common.addresses import parse_address, resolve
from supervisor_sio.supervisord import listeners

ROOT = Path(__file__).parents[3]
BIN = str(Path(sys.executable).parent)

#: The interpreter that the installed command has.
PYTHON = Path(BIN, "supervisor-sio").read_text().partition("\n")[0][len("#!") :]

ME = os.getuid()
NOBODY = pwd.getpwnam("nobody")
as_root = pytest.mark.skipif(ME != 0, reason="gives files to other users")

HOST = Host(uid=ME, descriptors=65536, somaxconn=4096, first_port=1024, path=("/usr/bin", BIN))


class Deployment:
    """A sound configuration, until a test changes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = str(directory / "supervisord.conf")
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
        """But for what a cluster of root's is told."""
        return [
            finding
            for finding in self.judge(host)
            if "runs as root, and strangers" not in finding.text
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


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    tmp_path.chmod(0o755)
    return Deployment(tmp_path)


# --- what is sound -----------------------------------------------------------------


def test_the_shipped_deployment_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "conf.d" / "supervisord.conf"
    findings = judge(read(str(path)), HOST)
    assert len(findings) == (2 if ME == 0 else 0)
    assert all("runs as root" in finding.text for finding in findings)
    assert run(str(path)) == 0
    said, error = capsys.readouterr()
    verdict = "2 warnings" if ME == 0 else "sound"
    assert said.endswith(
        f"{path}: {verdict} (listen 127.0.0.1:8000, 1 router, workers: workers × 2)\n"
    )
    assert error == ""


def test_a_sound_deployment(deployment: Deployment) -> None:
    assert deployment.lines() == []


def test_sections_in_an_included_file_are_sound(deployment: Deployment) -> None:
    deployment.include("eventlistener:sio", "program:workers", "rpcinterface:sio")
    assert deployment.lines() == []


def test_programs_beside_the_cluster_are_their_own_business(deployment: Deployment) -> None:
    deployment.set("program:cron", command="/bin/sh -c true", startsecs="0", autorestart="false")
    deployment.set("program:celery", command=f"{sys.executable} -m celery", stopsignal="QUIT")
    deployment.set("group:all", programs="cron,celery")
    deployment.set("superlance:x", email="me@example.org")
    deployment.set("eventlistener:sio", buffer_size="50")
    assert deployment.lines() == []


def test_python_programs_may_be_workers(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.set("program:workers", command="python app.py")
    assert deployment.lines() == []
    assert run(deployment.path) == 0
    assert "workers, if they call serve(): workers × 2)" in capsys.readouterr().out


# --- what is not ---------------------------------------------------------------------

CASES: list[tuple[str, dict[str, Optional[str]], str]] = [
    # of the plugin
    ("rpcinterface:sio", {"lisen": ":80"}, "error [rpcinterface:sio] lisen: unknown option; did"),
    (
        "rpcinterface:sio",
        {"balance": "fair"},
        "error [rpcinterface:sio] balance: 'fair' is not one",
    ),
    (
        "rpcinterface:sio",
        {"supervisor.rpcinterface_factory": "supervisor_sio:make_rpcinterface"},
        "error [rpcinterface:sio] supervisor.rpcinterface_factory: must be supervisor_sio.rpc",
    ),
    (
        "rpcinterface:sio",
        {"supervisor.rpcinterface_factory": None},
        "error [rpcinterface:sio] supervisor.rpcinterface_factory: must be supervisor_sio.rpc",
    ),
    (
        "rpcinterface:sio",
        {"message_queue": "redis://:100%@h"},
        "error [rpcinterface:sio] message_queue: supervisord does not understand what follows a "
        "percent sign; write a percent sign as %%, as in %%40 for @",
    ),
    (
        "rpcinterface:sio",
        {"message_queue": "redis://:1%40s@h"},
        "error [rpcinterface:sio] message_queue: supervisord has put its environment in; write a ",
    ),
    (
        "rpcinterface:sio",
        {"message_queue": "redis://h:port"},
        "error [rpcinterface:sio] message_queue: the URL is not understood",
    ),
    (
        "rpcinterface:sio",
        {"tls_keyfile": "/k"},
        "error [rpcinterface:sio] tls_keyfile: needs tls_certfile beside it",
    ),
    (
        "rpcinterface:sio",
        {"message_maxbytes": "128MB"},
        "error [rpcinterface:sio] buffer_maxbytes: 67108864 bytes have no room",
    ),
    (
        "rpcinterface:sio",
        {"tls_certfile": "/no/such.pem"},
        "error [rpcinterface:sio] tls_certfile: /no/such.pem: no such file or directory",
    ),
    (
        "rpcinterface:sio",
        {"listen": "unix:/no/such/a.sock"},
        "error [rpcinterface:sio] listen: unix:/no/such/a.sock: /no/such is no directory; create",
    ),
    (
        "rpcinterface:sio",
        {"listen": f"unix:/{'x' * 107}"},
        "error [rpcinterface:sio] listen: unix:/xxx",
    ),
    (
        "rpcinterface:sio",
        {"listen": "192.0.2.1:8000"},
        "error [rpcinterface:sio] listen: 192.0.2.1:8000: not an address of this host",
    ),
    (
        "rpcinterface:sio",
        {"listen": "no-such-host.invalid:8000"},
        "error [rpcinterface:sio] listen: no-such-host.invalid:8000: ",
    ),
    (
        "rpcinterface:sio",
        {"run_dir": "/etc/passwd/x"},
        "error [rpcinterface:sio] run_dir: /etc/passwd is not a directory; name a",
    ),
    (
        "rpcinterface:sio",
        {"run_dir": f"/{'x' * 100}"},
        "error [rpcinterface:sio] run_dir: /xxxx",
    ),
    (
        "rpcinterface:sio",
        {"backlog": "10000"},
        "warning [rpcinterface:sio] backlog: the kernel makes 4096 of 10000",
    ),
    # of supervisorctl and its server
    (
        "ctlplugin:sio",
        {"supervisor.ctl_factory": "supervisor_sio:make_ctlplugin"},
        "error [ctlplugin:sio] supervisor.ctl_factory: must be supervisor_sio.ctlplugin:make",
    ),
    (
        "supervisorctl",
        {"serverurl": None},
        "error [supervisorctl] serverurl: supervisord does not listen at http://localhost:9001, "
        "the default; write serverurl = unix:///",
    ),
    (
        "supervisorctl",
        {"serverurl": "unix://%(here)s/other.sock"},
        "error [supervisorctl] serverurl: supervisord does not listen at unix:///",
    ),
    (
        "supervisorctl",
        {"serverurl": "http://localhost:99999999"},
        "error [supervisorctl] serverurl: supervisord does not listen at http://",
    ),
    (
        "supervisorctl",
        {"serverurl": "unix://%(ther)s/s.sock"},
        "error [supervisorctl] serverurl: supervisord has no %(ther)s for this",
    ),
    (
        "unix_http_server",
        {"username": "me", "password": "secret"},
        "warning [supervisorctl] username: missing; [unix_http_server] asks for one",
    ),
    (
        "unix_http_server",
        {"username": "me"},
        "error [unix_http_server] username: Section [unix_http_server] contains incomplete",
    ),
    (
        "unix_http_server",
        {"file": "/no/such/s.sock"},
        "error [unix_http_server] file: /no/such is no directory; create it",
    ),
    (
        "rpcinterface:supervisor",
        {"supervisor.rpcinterface_factory": "no.such:module"},
        "error [rpcinterface:supervisor] supervisor.rpcinterface_factory: ",
    ),
    # of the router
    (
        "eventlistener:sio",
        {"events": "PROCESS_STATES"},
        "error [eventlistener:sio] events: PROCESS_STATES is not an event; did you mean "
        "PROCESS_STATE?",
    ),
    (
        "eventlistener:sio",
        {"events": None},
        "error [eventlistener:sio] events: missing; write events = PROCESS_STATE",
    ),
    (
        "eventlistener:sio",
        {"events": "TICK_60,PROCESS_STATE_RUNNING"},
        "error [eventlistener:sio] events: the router has to hear that a worker is being stopped",
    ),
    (
        "eventlistener:sio",
        {"events": "PROCESS_STATE,TICK_5"},
        "warning [eventlistener:sio] events: the router needs no other events",
    ),
    (
        "eventlistener:sio",
        {"redirect_stderr": "true"},
        "error [eventlistener:sio] redirect_stderr: sets redirect_stderr=true but",
    ),
    (
        "eventlistener:sio",
        {"numprocs": "2", "process_name": "sio_%(process_num)d"},
        "error [eventlistener:sio] numprocs: one router is enough; take this out",
    ),
    (
        "program:workers",
        {"numprocs": "5"},
        "warning [eventlistener:sio] buffer_size: 10 events have room, and 12 come when all",
    ),
    (
        "eventlistener:sio",
        {"command": "supervisor-sio rooter"},
        "error [eventlistener:sio] command: supervisor-sio rooter: did you mean 'router'?",
    ),
    (
        "eventlistener:sio",
        {"autorestart": "false"},
        "warning [eventlistener:sio] autorestart: once it has crashed it stays away",
    ),
    # of the workers
    (
        "program:workers",
        {"process_name": None},
        "error [program:workers] numprocs: more than one process needs a name for each; write "
        "process_name = %(program_name)s_%(process_num)02d",
    ),
    (
        "program:workers",
        {"command": "supervisor-sio worker myapp"},
        "error [program:workers] command: the application is missing; write supervisor-sio worker",
    ),
    (
        "program:workers",
        {"command": "supervisor-sio"},
        "error [program:workers] command: supervisor-sio : write router, or worker module:app",
    ),
    ("program:workers", {"command": None}, "error [program:workers] command: missing"),
    (
        "program:workers",
        {"command": '"'},
        'warning [program:workers] command: no closing quotation in "; correct it',
    ),
    (
        "program:workers",
        {"command": "/no/such/python app.py"},
        "error [program:workers] command: /no/such/python does not exist; install it, or",
    ),
    (
        "program:workers",
        {"command": "no-such-python app.py"},
        "error [program:workers] command: no-such-python is not on the PATH /usr/bin:",
    ),
    (
        "program:workers",
        {"environment": "PATH=/no/such"},
        "error [program:workers] command: supervisor-sio is not on the PATH /no/such",
    ),
    (
        "program:workers",
        {"command": "%(ENV_NO_SUCH_VENV)s/supervisor-sio worker myapp:app"},
        "error [program:workers] command: %(ENV_NO_SUCH_VENV)s: NO_SUCH_VENV is not in this env",
    ),
    (
        "program:workers",
        {"directory": "/no/such"},
        "error [program:workers] directory: /no/such is no directory; create it",
    ),
    (
        "program:workers",
        {"stopwaitsecs": None},
        "warning [program:workers] stopwaitsecs: 10 is not longer than drain_timeout (10): "
        "supervisord kills a worker that is still finishing its requests; write stopwaitsecs = 15",
    ),
    (
        "rpcinterface:sio",
        {"drain_timeout": "20"},
        "warning [program:workers] stopwaitsecs: 15 is not longer than drain_timeout (20)",
    ),
    (
        "program:workers",
        {"stopwaitsec": "15"},
        "warning [program:workers] stopwaitsec: unknown option; did you mean 'stopwaitsecs'?",
    ),
    (
        "program:workers",
        {"stopwaitsecs": "15s"},
        "error [program:workers] stopwaitsecs: '15s' is not a whole number",
    ),
    (
        "program:workers",
        {"startsecs": "0"},
        "warning [program:workers] startsecs: with 0 supervisord starts",
    ),
    (
        "program:workers",
        {"autostart": "no"},
        "warning [program:workers] autostart: it does not start with supervisord",
    ),
    (
        "program:workers",
        {"stopsignal": "QUIT"},
        "warning [program:workers] stopsignal: QUIT ends it at once, with all that is under way",
    ),
    (
        "program:workers",
        {"stopsignal": "STOPP"},
        "error [program:workers] stopsignal: value 'STOPP' is not a valid signal name",
    ),
    (
        "program:workers",
        {"numprocs": "0"},
        "error [program:workers] numprocs: no worker is started; write 1 or more",
    ),
    (
        "program:workers",
        {"user": "no such user"},
        "error [program:workers] user: Invalid user name no such user",
    ),
    # of supervisord
    ("supervisord", {"minfd": "9"}, "warning [supervisord] minfd: unknown option; did you mean"),
    ("supervisord", {"minfds": "many"}, "error [supervisord] minfds: 'many' is not a whole number"),
    (
        "supervisord",
        {"logfile": "/no/such/log"},
        "error [supervisord] logfile: The directory named",
    ),
    ("supervisord", {"user": "no such user"}, "error [supervisord] user: 'no such user' is not a"),
    ("group:all", {"programs": "workers,no"}, "error [group:all] programs: names unkn"),
    ("group:all", {"programs": "workers", "priority": "x"}, "error [group:all] priority: 'x' is"),
    ("progam:more", {"command": "x"}, "warning [progam:more]: unknown section; did you mean [prog"),
    ("program", {"command": "x"}, "warning [program]: has no name, so it is ignored"),
    ("include", {}, "error [include] files: missing; name files, or take the section out"),
    ("include", {"files": "no/such*.conf"}, "warning [include] files: no file matches no/such*"),
    ("include", {"files": "%(x)s"}, "error [include] files: supervisord has no %(x)s for this"),
    ("include", {"files": "/dev"}, "warning [include] files: supervisord skips /dev, a directory"),
]


@pytest.mark.parametrize(("section", "options", "expected"), CASES)
def test_a_mistake_is_told_with_its_place(
    deployment: Deployment, section: str, options: dict[str, str | None], expected: str
) -> None:
    severity, _, rest = expected.partition(" ")
    lines = deployment.set(section, **options).lines()
    start = f"{severity}: {deployment.path}: {rest}"
    assert any(line.startswith(start) for line in lines), lines
    assert all("\n" not in line for line in lines)
    # One mistake, and at most what follows from it.
    assert len(lines) <= 2, lines


MISSING = {
    "supervisord": "missing; supervisord does not start without it",
    "unix_http_server": "missing, and [inet_http_server] too",
    "supervisorctl": "missing; add it with serverurl = unix:///",
    "rpcinterface:supervisor": "supervisorctl needs this section",
    "rpcinterface:sio": "missing, so nothing listens; add what `supervisor-sio init` prints",
    "ctlplugin:sio": "missing, so there is no `supervisorctl sio`; add it with supervisor.ctl_",
    "eventlistener:sio": "missing: no section runs the router, so nobody takes connections",
    "program:workers": "missing: no program runs a worker; add [program:workers] with command",
}


@pytest.mark.parametrize("section", MISSING)
def test_a_missing_section_is_told(deployment: Deployment, section: str) -> None:
    del deployment.sections[section]
    (line,) = deployment.lines()
    assert line.startswith(f"error: {deployment.path}: [{section}]: {MISSING[section]}")


def test_mistakes_do_not_hide_each_other(deployment: Deployment) -> None:
    deployment.set("rpcinterface:sio", listn=":80", balance="fair", chmod="rwx")
    deployment.set("program:workers", startsecs="soon", stopwaitsecs="later", autorestart="maybe")
    deployment.set("eventlistener:sio", buffer_size="0", events="NO_SUCH_EVENT")
    places = [(finding.section, finding.option) for finding in deployment.findings()]
    assert sorted(places) == [
        ("eventlistener:sio", "buffer_size"),
        ("eventlistener:sio", "events"),
        ("program:workers", "autorestart"),
        ("program:workers", "startsecs"),
        ("program:workers", "stopwaitsecs"),
        ("rpcinterface:sio", "balance"),
        ("rpcinterface:sio", "chmod"),
        ("rpcinterface:sio", "listn"),
    ]


def test_a_section_under_another_name(deployment: Deployment) -> None:
    (line,) = deployment.rename("rpcinterface:sio", "rpcinterface:socketio").lines()
    assert "[rpcinterface:socketio]: supervisorctl asks for the name sio; write [rpc" in line


def test_supervisorctl_reads_no_included_files(deployment: Deployment) -> None:
    included = deployment.include("ctlplugin:sio", "supervisorctl")
    lines = deployment.lines()
    assert [line.partition("]: ")[2] for line in lines] == [
        f"supervisorctl reads no included files; move the section to {deployment.path}",
        f"move it to {deployment.path}, supervisorctl reads no included files",
    ]
    assert all(line.startswith(f"error: {included}: ") for line in lines)


def test_a_mistake_in_an_included_file_is_told_with_its_file(deployment: Deployment) -> None:
    workers = deployment.sections["program:workers"]
    included = deployment.include("program:workers")
    included.write_text(included.read_text() + "stopwaitsecs = 5\n")
    # Supervisor merges what two files say of a section.
    deployment.sections["program:workers"] = {**workers, "stopsignal": "KILL"}
    assert [line.partition("; ")[0].rpartition(": ")[0] for line in deployment.lines()] == [
        f"warning: {included}: [program:workers] stopwaitsecs: 5 is not longer than drain_timeout "
        "(10)",
        f"warning: {deployment.path}: [program:workers] stopsignal",
    ]


def test_without_an_include_supervisord_has_no_here_for_plugins(deployment: Deployment) -> None:
    deployment.set("rpcinterface:sio", run_dir="%(here)s/run")
    (line,) = deployment.lines()
    assert "[rpcinterface:sio] run_dir: supervisord has no %(here)s for this" in line
    deployment.include("program:workers")
    assert deployment.lines() == []


def test_included_files_that_are_not_read(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "gone.conf.in").symlink_to("/no/such/file")
    (tmp_path / "nested.conf.in").write_text("[include]\nfiles = x\n")
    deployment.set("include", files="*.in")
    assert deployment.lines() == [
        f"error: {deployment.path}: [include] files: {tmp_path}/gone.conf.in cannot be read; "
        "supervisord would skip it",
        f"warning: {tmp_path}/nested.conf.in: [include] files: supervisord does not follow this in "
        f"an included file; name the files in {deployment.path}",
    ]


def test_a_router_as_a_program(deployment: Deployment) -> None:
    (line,) = (
        deployment.rename("eventlistener:sio", "program:sio")
        .set("program:sio", events=None)
        .lines()
    )
    assert line.startswith(f"error: {deployment.path}: [program:sio]: the router speaks the event ")
    assert "rename the section to [eventlistener:sio]" in line


def test_a_worker_as_an_event_listener(deployment: Deployment) -> None:
    deployment.rename("program:workers", "eventlistener:w").set("eventlistener:w", events="TICK_5")
    (line,) = deployment.lines()
    assert "[eventlistener:w]: a worker is a program; write [program:w]" in line


def test_two_routers(deployment: Deployment) -> None:
    deployment.set("eventlistener:b", command="exec supervisor-sio router", events="PROCESS_STATE")
    lines = deployment.lines()
    assert any(
        "[eventlistener:b] command: a second router beside [eventlistener:sio]" in line
        for line in lines
    )


def test_no_program_that_looks_like_a_worker(deployment: Deployment) -> None:
    deployment.set("program:workers", command="/bin/sh -c true")
    (line,) = deployment.lines()
    assert line.startswith(f"warning: {deployment.path}: [program:workers]: missing: no program ")


def test_inet_http_server(deployment: Deployment) -> None:
    deployment.set("inet_http_server", port="127.0.0.1:9001")
    deployment.set("supervisorctl", serverurl=None)
    assert deployment.lines() == []
    deployment.set("rpcinterface:sio", listen="0.0.0.0:9001")
    (line,) = deployment.lines()
    assert "listen: 0.0.0.0:9001: [inet_http_server] has this port too; change one" in line
    deployment.set("inet_http_server", port="*:9001")
    deployment.set("rpcinterface:sio", listen="127.0.0.1:9001")
    (line,) = deployment.lines()
    assert "listen: 127.0.0.1:9001: [inet_http_server] has this port too; change one" in line
    # Another address of the same port is another place.
    deployment.set("inet_http_server", port="127.0.0.1:9001")
    deployment.set("rpcinterface:sio", listen="127.0.0.2:9001")
    assert deployment.lines() == []


# --- the host -----------------------------------------------------------------------


def _host(**changes: Any) -> Host:
    return Host(**{**vars(HOST), **changes})


def test_a_low_limit_of_descriptors(deployment: Deployment) -> None:
    deployment.set("supervisord", user=str(NOBODY.pw_uid))
    lines = [line for line in deployment.lines(_host(descriptors=1024)) if "minfds" in line]
    assert len(lines) == 1
    assert lines[0].startswith("warning: ")
    assert "fewer than 1024 clients; raise LimitNOFILE=" in lines[0]
    deployment.set("supervisord", minfds="8192")
    lines = [line for line in deployment.lines(_host(descriptors=1024)) if "minfds" in line]
    assert len(lines) == 2
    assert "8192 is more than the hard limit here, 1024, and only root may" in lines[0]


def test_minfds_raises_the_limit_of_root(deployment: Deployment) -> None:
    deployment.set("supervisord", user="root")
    (line,) = deployment.lines(_host(descriptors=512))
    assert "fewer than 1024 clients; write minfds = 65536, or raise LimitNOFILE=" in line
    deployment.set("supervisord", minfds="8192")
    assert deployment.lines(_host(descriptors=512)) == []


def test_a_low_port(deployment: Deployment) -> None:
    deployment.set("rpcinterface:sio", listen="127.0.0.1:1023")
    assert not any("1023" in line for line in deployment.lines(_host(uid=0)))
    deployment.set("supervisord", user=str(NOBODY.pw_uid))
    lines = [line for line in deployment.lines() if "listen: 127.0.0.1:1023: a port below" in line]
    assert lines
    assert lines[0].startswith("warning: ")
    assert not any("a port below" in line for line in deployment.lines(_host(first_port=80)))


def test_a_file_where_a_socket_should_be(deployment: Deployment) -> None:
    deployment.set("rpcinterface:sio", listen=f"unix:{deployment.path}")
    (line,) = deployment.lines()
    assert line.endswith("this file is no socket; remove it, or take another path")


def test_a_socket_of_supervisord_that_it_cannot_make(deployment: Deployment) -> None:
    path = f"/tmp/{'x' * 95}"
    deployment.set("unix_http_server", file=path).set("supervisorctl", serverurl=f"unix://{path}")
    (line,) = deployment.lines()
    assert "[unix_http_server] file: the path of this Unix socket may have at most 99 b" in line
    deployment.set("unix_http_server", file="/etc/s").set(
        "supervisorctl", serverurl="unix:///etc/s"
    )
    deployment.set("supervisord", user="nobody")
    assert any(
        "[unix_http_server] file: supervisord as nobody may not write to /etc; change its" in line
        for line in deployment.lines()
    )


def test_a_port_in_use(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        deployment.set("rpcinterface:sio", listen=f"127.0.0.1:{taken.getsockname()[1]}")
        (line,) = deployment.lines()
        assert line.endswith("address already in use; stop the program that listens there")
        # It may well be the supervisord that runs already.
        with socket.socket(socket.AF_UNIX) as running:
            monkeypatch.chdir(tmp_path)  # paths of Unix sockets are short
            running.bind("s.sock")
            running.listen()
            deployment.set("unix_http_server", file="/proc/self/cwd/s.sock")
            deployment.set("supervisorctl", serverurl="unix:///proc/self/cwd/s.sock")
            assert deployment.lines() == []


def test_metrics(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        deployment.set("rpcinterface:sio", metrics=address)
        (line,) = deployment.lines()
    assert f"[rpcinterface:sio] metrics: {address}: address already in use" in line
    assert deployment.lines() == []
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    (line,) = deployment.lines()
    assert line.endswith(
        "[rpcinterface:sio] metrics: needs the prometheus_client package in the Python of "
        f"[eventlistener:sio]: {PYTHON} -m pip install 'supervisor-sio[metrics]'"
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"listen": "0.0.0.0:{port}, 127.0.0.1:{port}"},
            "listen: 127.0.0.1:{port}: listen 0.0.0.0:{port} has this port too; change one of them",
        ),
        (
            {"listen": "127.0.0.1:{port}", "metrics": "0.0.0.0:{port}"},
            "metrics: 0.0.0.0:{port}: listen 127.0.0.1:{port} has this port too; change one of",
        ),
        (
            {"metrics": "unix:{directory}/link/port.sock"},
            "metrics: unix:{directory}/link/port.sock: listen unix:{directory}/port.sock has this ",
        ),
        (
            {"listen": "unix:{directory}/s.sock"},
            "listen: unix:{directory}/s.sock: [unix_http_server] has this path too; change one of",
        ),
        (
            {"listen": "unix:{directory}/link/s.sock"},
            "listen: unix:{directory}/link/s.sock: [unix_http_server] has this path too; change",
        ),
        ({"listen": "127.0.0.1:{port}, 127.0.0.2:{port}"}, None),
    ],
)
def test_two_sockets_for_one_place(
    deployment: Deployment, options: dict[str, str], complaint: Optional[str]
) -> None:
    (deployment.directory / "link").symlink_to(deployment.directory)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        names = {"port": probe.getsockname()[1], "directory": deployment.directory}
    deployment.set(
        "rpcinterface:sio", **{name: text.format(**names) for name, text in options.items()}
    )
    lines = deployment.lines()
    if complaint is None:
        assert lines == []
    else:
        (line,) = lines
        assert f"error: {deployment.path}: [rpcinterface:sio] {complaint.format(**names)}" in line


def test_a_name_of_several_addresses(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(host: str, port: int, *more: Any, **named: Any) -> list[Any]:
        hosts = ["127.0.0.3", "127.0.0.2", "127.0.0.3"] if host == "several" else [host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in hosts]

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    deployment.set("rpcinterface:sio", listen=f"several:{port}")
    assert deployment.lines() == [
        f"warning: {deployment.path}: [rpcinterface:sio] listen: several:{port}: several is "
        "127.0.0.3 and 127.0.0.2 here, and supervisord listens at 127.0.0.3 only; write the "
        "address that is meant, or in listen each of them"
    ]
    with listeners.bind(parse_address(f"several:{port}"), 16) as sock:
        assert sock.getsockname()[0] == "127.0.0.3"
    deployment.set("rpcinterface:sio", listen=f"127.0.0.3:{port}, 127.0.0.2:{port}")
    assert deployment.lines() == []


@as_root
def test_users_who_cannot_enter_the_run_directory(deployment: Deployment) -> None:
    name = NOBODY.pw_name
    deployment.set("program:workers", user=name)
    (line,) = deployment.lines()
    assert line.startswith(f"error: {deployment.path}: [program:workers] user: {name} may not ")
    assert line.endswith(
        "mode 0700; write chown = root:GROUP with a group of that user, and chmod = 0710, in "
        "[rpcinterface:sio]"
    )
    deployment.set("program:workers", command="python3 app.py")
    assert deployment.findings()[0].severity == "warning"  # it may be no worker
    deployment.set("rpcinterface:sio", chown=name)
    assert deployment.lines() == []
    deployment.set("rpcinterface:sio", chown=f"root:{NOBODY.pw_gid}")
    assert len(deployment.lines()) == 1
    deployment.set("rpcinterface:sio", chmod="0710")
    assert deployment.lines() == []


@pytest.mark.parametrize(
    ("chmod", "enough"),
    [("0770", "0710"), ("0777", "0711"), ("0722", "0700"), ("0750", None), ("0711", None)],
)
def test_a_run_directory_that_others_may_write(
    deployment: Deployment, chmod: str, enough: Optional[str]
) -> None:
    deployment.set("rpcinterface:sio", chmod=chmod)
    expected = (
        f"warning: {deployment.path}: [rpcinterface:sio] chmod: {chmod} lets others replace the "
        f"sockets in run_dir; to be a worker or to emit takes no more than to enter it: "
        f"write {enough}"
    )
    assert deployment.lines() == ([expected] if enough else [])


def test_a_run_directory_behind_a_link(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    deployment.set("rpcinterface:sio", run_dir=f"{tmp_path}/link")
    (line,) = deployment.lines()
    assert "run_dir: " in line
    assert "/link is a symbolic link; name the directory itself" in line


@as_root
def test_a_run_directory_that_is_there(deployment: Deployment, tmp_path: Path) -> None:
    name = NOBODY.pw_name
    for directory in list(tmp_path.parents)[:-2]:
        directory.chmod(0o755)
    there = Path("/tmp") / f"check-{os.getpid()}"
    there.mkdir()
    try:
        deployment.set("rpcinterface:sio", run_dir=f"{there}")
        deployment.set("program:workers", user=name)
        assert len(deployment.lines()) == 1
        os.chown(there, NOBODY.pw_uid, -1)
        deployment.set("rpcinterface:sio", chown=name)
        assert deployment.lines() == []
        deployment.set("rpcinterface:sio", chown=None)
        deployment.set("program:workers", user=None)
        (line,) = deployment.lines()
        assert f"run_dir: {there} belongs to {name}; name a directory that only this" in line
        deployment.set("program:workers", user=name)
        # Below another one that is closed.
        os.chown(there, 0, 0)
        there.chmod(0o700)
        deployment.set("rpcinterface:sio", run_dir=f"{there}/run", chown=name)
        (line,) = deployment.lines()
        assert f"{name} may not enter {there}, where the run directory is; set run_dir" in line
        # A supervisord that is not root itself.
        deployment.set("rpcinterface:sio", run_dir=f"{there}", chown=None)
        deployment.set("program:workers", user=None)
        deployment.set("supervisord", user=name)
        assert any(f"run_dir: {there} belongs to root; name a" in x for x in deployment.lines())
        deployment.set("rpcinterface:sio", run_dir=f"{there}/run")
        assert any(f"may not write to {there}; create" in x for x in deployment.lines())
    finally:
        there.rmdir()


def test_a_run_directory_that_is_for_all_users(deployment: Deployment, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    deployment.set("rpcinterface:sio", run_dir=f"{shared}")
    assert any(
        line.endswith(
            f"run_dir: {shared} is for the files of all users; name a directory that only this "
            "cluster uses, for example /run/myapp-sio (supervisord creates it)"
        )
        for line in deployment.lines()
    )


def test_a_supervisord_that_is_not_root_gives_nothing_away(deployment: Deployment) -> None:
    deployment.set("supervisord", user=NOBODY.pw_name)
    deployment.set("program:workers", user="daemon")
    deployment.set("rpcinterface:sio", chown="daemon")
    lines = deployment.lines()
    start = f"error: {deployment.path}: "
    assert any(
        line.startswith(f"{start}[rpcinterface:sio] chown: supervisord as nobody may")
        for line in lines
    )
    assert any(
        line.startswith(f"{start}[program:workers] user: a supervisord that runs as nobody cannot")
        for line in lines
    )


@as_root
def test_a_router_that_cannot_read_the_key(deployment: Deployment, tmp_path: Path) -> None:
    certificate, key = _make_certificate(tmp_path)
    deployment.set("rpcinterface:sio", tls_certfile=str(certificate), tls_keyfile=str(key))
    assert deployment.lines() == []
    deployment.set("eventlistener:sio", user="nobody")
    deployment.set("rpcinterface:sio", chown="nobody")
    lines = deployment.lines()
    assert any("tls_keyfile: the router as nobody may not read " in line for line in lines)
    key.write_text("no key")
    deployment.set("eventlistener:sio", user=None)
    (line,) = deployment.lines()
    assert "not a certificate and its key without password" in line


def _make_certificate(directory: Path) -> tuple[Path, Path]:
    certificate, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    return certificate, key


def test_redis_is_not_installed(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    (line,) = deployment.set("rpcinterface:sio", message_queue="redis://host").lines()
    assert line.endswith(
        "[rpcinterface:sio] message_queue: needs the redis package in the Python of "
        f"[eventlistener:sio]: {PYTHON} -m pip install 'supervisor-sio[redis]'"
    )


def test_eventlet_is_not_installed(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "eventlet", None)
    (line,) = deployment.lines()
    assert line.endswith(
        f"[program:workers] command: its Python, {PYTHON}, has no eventlet: {PYTHON} -m pip "
        "install supervisor-sio"
    )


@pytest.mark.parametrize(
    ("first", "python"),
    [
        ("#!/opt/venv/bin/python3.11\nimport sys\n", "/opt/venv/bin/python3.11"),
        ("#!/opt/venv/bin/python -s\n", "/opt/venv/bin/python"),
        ('#!/bin/sh\n\'\'\'exec\' "/my apps/bin/python3" "$0" "$@"\n', "/my apps/bin/python3"),
        ("#!/bin/sh\n'''exec' /apps/bin/python3 \"$0\" \"$@\"\n", "/apps/bin/python3"),
        ("#!/usr/bin/env python3\n", None),
        ("#!/bin/sh\nexec /opt/supervisor-sio\n", None),
        ("", None),
    ],
)
def test_the_python_of_a_script(tmp_path: Path, first: str, python: Optional[str]) -> None:
    (tmp_path / "supervisor-sio").write_text(first)
    assert _shebang(str(tmp_path / "supervisor-sio")) == python


@pytest.mark.parametrize("command", ["{}", "env X=1 {}", "sh -c 'cd / && exec {}'"])
def test_a_python_that_does_not_run(deployment: Deployment, command: str) -> None:
    script = deployment.directory / "supervisor-sio"
    script.write_text("#!/no/such/python3\n")
    script.chmod(0o755)
    command = command.format(f"{script} worker myapp:app")
    (line,) = deployment.set("program:workers", command=command).lines()
    assert line.endswith(
        "[program:workers] command: its Python, /no/such/python3, does not run: "
        "No such file or directory"
    )


@pytest.mark.parametrize(
    ("section", "options"),
    [
        ("supervisorctl", {"serverurl": "http://me:s3cret@localhost:9001"}),
        ("rpcinterface:sio", {"listen": "redis://me:s3cret@localhost"}),
        ("rpcinterface:sio", {"message_queue": "redis://me:%2Fs3cret@localhost"}),
        ("rpcinterface:sio", {"message_queue": "redis://me:%40s3cret@localhost"}),
        ("rpcinterface:sio", {"message_queue": "redis://me:s3cret/1@localhost:x"}),
        ("program:workers", {"environment": "URL=redis://me:s3cret%2F@localhost"}),
    ],
)
def test_no_password_is_printed(
    deployment: Deployment,
    capsys: pytest.CaptureFixture[str],
    section: str,
    options: dict[str, str],
) -> None:
    assert deployment.set(section, **options).lines()
    assert run(deployment.path) == 1
    Path(deployment.path).write_text("redis://me:s3cret@localhost\n")
    assert run(deployment.path) == 2
    said = capsys.readouterr()
    assert "s3cret" not in said.out + said.err and said.out and said.err


@pytest.mark.parametrize("section", ["eventlistener:sio", "program:workers"])
def test_what_runs_as_root(deployment: Deployment, section: str) -> None:
    host = _host(uid=0)
    deployment.set("rpcinterface:sio", chown=f"root:{NOBODY.pw_gid}", chmod="0710")
    for other in {"eventlistener:sio", "program:workers"} - {section}:
        deployment.set(other, user="root")  # as if it must be
    (line,) = [str(each) for each in deployment.judge(host) if "runs as root" in each.text]
    assert f"warning: {deployment.path}: [{section}] user: the " in line
    assert "write user = www-data or another one here, and chown = root:GROUP" in line
    deployment.set(section, user="nobody")
    assert not any("runs as root" in finding.text for finding in deployment.judge(host))
    deployment.set(section, user=None).set("supervisord", user="nobody")
    assert not any("runs as root" in finding.text for finding in deployment.judge(host))


def _script(directory: Path, text: str) -> str:
    path = directory / "start.sh"
    path.write_text(f"#!/bin/sh\n# supervisor-sio router would be something else\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("cd /srv\nsupervisor-sio worker myapp:app", True),
        ("cd /srv && /opt/bin/supervisor-sio worker myapp:app", True),
        ("if true; then supervisor-sio worker myapp:app; fi", True),
        ("exec echo; supervisor-sio worker myapp:app", True),
        ("exec supervisor-sio worker myapp:app", False),
        ("cd /srv && exec env A=b supervisor-sio worker myapp:app", False),
    ],
)
def test_a_start_script_without_exec(deployment: Deployment, text: str, stays: bool) -> None:
    script = _script(deployment.directory, text)
    for command, shown in (
        (script, script),
        (f"sh {script}", script),
        (f"sh -c '{text}'", "the shell"),
    ):
        if "\n" in command:
            continue
        lines = deployment.set("program:workers", command=command).lines()
        expected = (
            f"warning: {deployment.path}: [program:workers] command: {shown} starts "
            "supervisor-sio without exec and stays in between: supervisord stops the shell alone, "
            "and the old worker runs on; write exec before the command"
        )
        assert lines == [expected] * stays, command


def test_a_router_in_a_start_script(deployment: Deployment) -> None:
    script = _script(deployment.directory, "exec supervisor-sio router")
    (line,) = deployment.set("eventlistener:sio", command=script).lines()
    assert f"error: {deployment.path}: [eventlistener:sio] command: {script} starts the " in line


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"command": "supervisor-sio worker other:app"}, "other:app is another application than "),
        ({"directory": "/"}, "myapp:app in / is another application than myapp:app of ["),
        ({"command": "sh -c 'exec supervisor-sio worker myapp:app'"}, None),
    ],
)
def test_two_applications_of_one_port(
    deployment: Deployment, changes: dict[str, str], told: Optional[str]
) -> None:
    deployment.set("program:more", **{**deployment.sections["program:workers"], **changes})
    lines = deployment.lines()
    if told is None:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith(f"warning: {deployment.path}: [program:more] command: {told}")
        assert line.endswith(
            "of [program:workers], and both serve one port: a client gets one or the other; give "
            "each application its own supervisord"
        )


@as_root
def test_a_log_on_a_terminal_of_another_user(deployment: Deployment) -> None:
    ours, theirs = os.openpty()
    try:
        path = f"/dev/fd/{theirs}"
        deployment.set("program:workers", stdout_logfile=path, stdout_logfile_maxbytes="0")
        assert deployment.lines() == []
        expected = (
            f"[program:workers] stdout_logfile: supervisord as nobody opens {path} anew, which it "
            "may not where that is a terminal or pipe of root: the program does not start; name a "
            "file"
        )
        for host in (HOST, _host(uid=NOBODY.pw_uid)):
            deployment.set("supervisord", user="nobody")
            assert [line for line in deployment.lines(host) if line.endswith(expected)]
        os.chown(theirs, NOBODY.pw_uid, -1)
        lines = deployment.lines(_host(uid=NOBODY.pw_uid))
        assert not [line for line in lines if "stdout_logfile" in line]
    finally:
        os.close(ours)
        os.close(theirs)


# --- what cannot be read --------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file or directory"),
        (b"hello\n", "line 1: no [section] before 'hello'"),
        (b"[supervisord]\nhello\n", "line 2: neither a section, an option nor a comment: "),
        (b"\xff\xfe\x00", "not a text file"),
        (b"[supervisord]\nx = \x00", "not a text file"),
    ],
)
def test_a_file_that_is_no_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, reason: str
) -> None:
    path = tmp_path / "supervisord.conf"
    if content is not None:
        path.write_bytes(content)
    assert run(str(path)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"supervisor-sio check: error: {path}")
    assert reason in err
    assert err.count("\n") == 1


def test_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path)) == 2
    assert capsys.readouterr().err.endswith("is a directory\n")


def test_an_included_file_that_is_no_configuration(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "x.in").write_text("hello")
    deployment.set("include", files="x.in")
    with pytest.raises(Unreadable, match="x.in, line 1: no \\[section\\]"):
        deployment.lines()


def test_the_default_is_where_supervisord_looks(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.lines()
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "supervisor-sio")])
    assert default_path() == deployment.path
    os.unlink(deployment.path)
    monkeypatch.setattr(ServerOptions, "default_configfile", None)
    monkeypatch.chdir(tmp_path)
    if not os.path.exists("/etc/supervisord.conf"):
        with pytest.raises(Unreadable, match="no configuration file at .*; name yours"):
            default_path()


def test_exit_statuses(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    if ME == 0:
        for section in ("eventlistener:sio", "program:workers"):
            deployment.set(section, user="root")
    deployment.set("program:workers", stopwaitsecs="5").lines()
    assert run(deployment.path) == 0
    assert "supervisord.conf: 1 warning (listen unix:" in capsys.readouterr().out
    deployment.set("program:workers", numprocs="x", autostart="no").lines()
    assert run(deployment.path) == 1
    assert capsys.readouterr().out.endswith("supervisord.conf: 1 error, 2 warnings\n")


def test_the_process_stays_as_it_is(
    deployment: Deployment, tmp_path: Path, no_leak: Callable[[], AbstractContextManager[None]]
) -> None:
    deployment.set("supervisord", user="root", umask="077", directory="/", logfile="%(here)s/log")
    deployment.lines()

    def state() -> Any:
        os.umask(mask := os.umask(0))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        return os.getcwd(), mask, os.getuid(), limits, dict(os.environ), os.listdir(tmp_path)

    before = state()
    with no_leak():
        deployment.lines()
    assert state() == before


RANDOM = [
    (section, option)
    for kind, names in OPTIONS.items()
    for section in [{"program": "program:workers", "eventlistener": "eventlistener:sio"}.get(kind)]
    for option in sorted(names - {"numprocs"})
    if section or kind in ("supervisord", "supervisorctl", "unix_http_server", "include")
    for section in [section or kind]
]


@given(
    st.lists(st.tuples(st.sampled_from(RANDOM), st.text(max_size=12)), max_size=4),
    st.sampled_from(["rpcinterface:sio", "program:workers", "[", "fcgi-program:x"]),
    st.text("abc:=%[](){}\n \t;#s", max_size=20),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_text_is_judged(
    tmp_path: Path, changes: list[tuple[tuple[str, str], str]], section: str, more: str
) -> None:
    deployment = Deployment(tmp_path)
    for (name, option), value in changes:
        deployment.set(name, **{option: value})
    deployment.set(section, x=more)
    try:
        assert all("\n" not in line for line in deployment.lines())
    except (Unreadable, UnicodeEncodeError):
        pass


# --- small parts -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("supervisor-sio router", Role.ROUTER),
        ("/opt/my app/bin/supervisor-sio  router", Role.ROUTER),
        ("nice -n 5 supervisor-sio worker a:b", Role.WORKER),
        ("sh -c 'cd /srv && exec supervisor-sio worker a:b'", Role.WORKER),
        ('sh -c "supervisor-sio worker a:b"', Role.WORKER),
        ("python app.py", Role.PYTHON),
        ("/opt/venv/bin/python3.11 -m app", Role.PYTHON),
        ("./app.py --port 1", Role.PYTHON),
        ("supervisor-sio", Role.OTHER),
        ("supervisor-sio workers", Role.OTHER),
        ("my-supervisor-sio worker", Role.OTHER),
        ("nginx -g 'daemon off;'", Role.OTHER),
        ("", Role.OTHER),
    ],
)
def test_roles(command: str, role: Role) -> None:
    assert role_of(command) is role


@pytest.mark.parametrize(
    ("mode", "who", "want", "may"),
    [
        (0o700, User(0, frozenset(), ""), ENTER, True),
        (0o700, User(5, frozenset(), ""), ENTER, True),
        (0o070, User(5, frozenset({6}), ""), ENTER, False),  # the owner's bits count alone
        (0o070, User(7, frozenset({6}), ""), WRITE | ENTER, True),
        (0o707, User(7, frozenset({6}), ""), READ, False),
        (0o701, User(7, frozenset(), ""), ENTER, True),
        (0o701, User(7, frozenset(), ""), ENTER | READ, False),
    ],
)
def test_permission_bits(mode: int, who: User, want: int, may: bool) -> None:
    assert lets_in(mode, 5, 6, who, want) is may


def test_the_obstacle_is_the_first_on_the_way(tmp_path: Path) -> None:
    stranger = User(54321, frozenset(), "stranger")
    assert obstacle("/etc/passwd", stranger, READ) is None
    assert obstacle("/etc/passwd", stranger, WRITE) == "/etc/passwd"
    assert obstacle("/no/such/file", stranger, READ) is None
    file = tmp_path / "closed" / "file"
    file.parent.mkdir(mode=0o700)
    file.touch()
    found = obstacle(str(file), stranger, READ)
    assert found is not None
    assert not os.stat(found).st_mode & stat.S_IXOTH


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("0.0.0.0:80", "127.0.0.2:80", True),
        ("0.0.0.0:80", "127.0.0.2:81", False),
        ("[::]:80", "[::1]:80", True),
        ("[::]:80", "0.0.0.0:80", False),
    ],
)
def test_places_overlap(one: str, other: str, expected: bool) -> None:
    first, second = (resolve(parse_address(text))[0] for text in (one, other))
    assert overlap(first, second) == overlap(second, first) == expected


def test_users() -> None:
    assert user(0).name == "root"
    assert user(54321).name == "with uid 54321"


def test_commands(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "sub").mkdir()
    path = [str(tmp_path), "/bin"]
    assert command_fault("sh", path, "/") is None
    assert command_fault("bin/sh", path, "/") is None
    assert command_fault("no/sh", path, "/") == "no/sh does not exist"
    # supervisord looks no further than the first of that name.
    assert command_fault("plain", path, "/") == f"{tmp_path}/plain is not executable"
    assert command_fault("sub", path, "/") == f"{tmp_path}/sub is a directory"


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


# --- init -------------------------------------------------------------------------------

MINIMAL = """\
[supervisord]
logfile = /dev/null
[unix_http_server]
file = {directory}/s.sock
[supervisorctl]
serverurl = unix://{directory}/s.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""


@pytest.mark.parametrize("workers", [1, 4, 40])
def test_what_init_prints_is_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    listen = f"unix:{tmp_path}/100%.sock"
    assert cli.main(["init", "chat:app", "--listen", listen, "--workers", str(workers)]) == 0
    sections = capsys.readouterr().out
    if ME == 0:  # as the comments say
        sections = sections.replace(";chown = root:www-data", f"chown = root:{NOBODY.pw_gid}")
        sections = sections.replace(";chmod", "chmod").replace(";user = www-data", "user = nobody")
        tmp_path.chmod(0o755)
    path = tmp_path / "supervisord.conf"
    path.write_text(MINIMAL.format(directory=tmp_path) + sections)
    configuration = read(str(path))
    assert judge(configuration, HOST) == []
    assert configuration.settings is not None
    assert [str(address) for address in configuration.settings.listen] == [listen]
    (program,) = configuration.workers
    assert program.command == "supervisor-sio worker chat:app"
    assert len(program.processes) == workers
    # And where the comments say that the second part goes.
    main, mark, rest = sections.partition("; --- Below them")
    path.write_text(MINIMAL.format(directory=tmp_path) + main + "[include]\nfiles = sio.conf\n")
    (tmp_path / "sio.conf").write_text(mark + rest)
    assert judge(read(str(path)), HOST) == []


def test_init_has_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init"]) == 0
    out = capsys.readouterr().out
    assert "listen = 127.0.0.1:8000\n" in out
    assert "command = supervisor-sio worker myapp:app\n" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["chat"], "'chat' is not module:app, as in chat:app"),
        (["chat:app x"], "'chat:app x' is not module:app, as in chat:app"),
        (["--listen", "8000"], "'8000' is not host:port, [v6]:port or unix:/path"),
        (["--workers", "0"], "0 workers do no work; give 1 or more"),
    ],
)
def test_init_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert cli.main(["init", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("supervisor-sio init: error: ")
    assert reason in err


def test_sections_are_parted_as_said() -> None:
    assert make_sections("a:b", "[::1]:80, x:1", 2).count("; --- ") == 2
    assert "listen = [::1]:80, x:1\n" in make_sections("a:b", "[::1]:80,x:1", 2)
