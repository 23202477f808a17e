from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor_sio.check import judge, run
from supervisor_sio.check.reading import Unreadable, read
from supervisor_sio.check.wiring import OPTIONS
from unit.check.deployment import HOST, ME, ROOT, Deployment
from unit.examples import examples

# --- what is sound -----------------------------------------------------------------


@pytest.mark.usefixtures("free_ports")
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
        "error [rpcinterface:sio] message_queue: supervisord has inserted its environment; write ",
    ),
    (
        "rpcinterface:sio",
        {"message_queue": "redis://h:port"},
        "error [rpcinterface:sio] message_queue: the URL is not understood",
    ),
    (
        "rpcinterface:sio",
        {"tls_keyfile": "/k"},
        "error [rpcinterface:sio] tls_keyfile: needs the option tls_certfile as well",
    ),
    (
        "rpcinterface:sio",
        {"message_maxbytes": "128MB"},
        "error [rpcinterface:sio] buffer_maxbytes: 67108864 bytes are less than",
    ),
    (
        "rpcinterface:sio",
        {"tls_certfile": "/no/such.pem"},
        "error [rpcinterface:sio] tls_certfile: /no/such.pem: no such file or directory",
    ),
    (
        "rpcinterface:sio",
        {"listen": "unix:/no/such/a.sock"},
        "error [rpcinterface:sio] listen: unix:/no/such/a.sock: /no/such is not a directory",
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
        "warning [rpcinterface:sio] backlog: the kernel reduces 10000 to 4096",
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
        "warning [supervisorctl] username: missing; [unix_http_server] requires it",
    ),
    (
        "unix_http_server",
        {"username": "me"},
        "error [unix_http_server] username: Section [unix_http_server] contains incomplete",
    ),
    (
        "unix_http_server",
        {"file": "/no/such/s.sock"},
        "error [unix_http_server] file: /no/such is not a directory; create it",
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
        "error [eventlistener:sio] events: the router needs the event that a worker is being",
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
        "error [eventlistener:sio] numprocs: only one router may run; remove this",
    ),
    (
        "program:workers",
        {"numprocs": "5"},
        "warning [eventlistener:sio] buffer_size: holds 10 events, but 12 occur when all",
    ),
    (
        "eventlistener:sio",
        {"command": "supervisor-sio rooter"},
        "error [eventlistener:sio] command: supervisor-sio rooter: did you mean 'router'?",
    ),
    (
        "eventlistener:sio",
        {"autorestart": "false"},
        "warning [eventlistener:sio] autorestart: supervisord does not restart it after a crash",
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
        "error [program:workers] directory: /no/such is not a directory; create it",
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
        "warning [program:workers] startsecs: with 0, supervisord restarts",
    ),
    (
        "program:workers",
        {"autostart": "no"},
        "warning [program:workers] autostart: it does not start with supervisord",
    ),
    (
        "program:workers",
        {"stopsignal": "QUIT"},
        "warning [program:workers] stopsignal: QUIT ends it at once, without finishing its",
    ),
    (
        "program:workers",
        {"stopsignal": "0"},
        "warning [program:workers] stopsignal: 0 is not a signal that stops it gracefully; write",
    ),
    (
        "program:workers",
        {"stopsignal": "STOPP"},
        "error [program:workers] stopsignal: value 'STOPP' is not a valid signal name",
    ),
    (
        "program:workers",
        {"numprocs": "0"},
        "error [program:workers] numprocs: starts no worker; write 1 or more",
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
    ("program", {"command": "x"}, "warning [program]: has no name, so supervisord ignores it"),
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
    "unix_http_server": "missing, as is [inet_http_server]",
    "supervisorctl": "missing; add it with serverurl = unix:///",
    "rpcinterface:supervisor": "supervisorctl needs this section",
    "rpcinterface:sio": "missing, so nothing listens; add what `supervisor-sio init` prints",
    "ctlplugin:sio": "missing, so `supervisorctl sio` does not exist; add it with supervisor",
    "eventlistener:sio": "missing: no section runs the router, so no connection is accepted",
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
    assert line.startswith("warning: ")
    assert "[rpcinterface:socketio]: supervisorctl uses the cluster sio by default; write" in line


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


def test_each_option_that_cannot_be_expanded_is_named(deployment: Deployment) -> None:
    deployment.set(
        "rpcinterface:sio",
        channel="a%40b",
        run_dir="%(here)s/run",
        tls_certfile="Format string 'x' for 'rpcinterface:sio.listen' contains names %(her)s",
        metrics="unix:%(here)s/metrics",
    )
    deployment.set("program:workers", stdout_logfile="%(hre)s/log", environment='A="%(ENV_NO)s"')
    found = [line.partition(": ")[2].partition(": ")[2] for line in deployment.lines()]
    named = [re.match(r"\[(.*?)\] (\w+): ", line) for line in found]
    assert sorted(match.groups() for match in named if match) == [
        ("program:workers", "environment"),
        ("program:workers", "stdout_logfile"),
        *[("rpcinterface:sio", name) for name in ("channel", "metrics", "run_dir", "tls_certfile")],
    ]


def test_an_option_of_supervisorctl_that_cannot_be_expanded(deployment: Deployment) -> None:
    deployment.set("ctlplugin:sio", colour="%(here)s")
    (line,) = deployment.lines()
    assert line == (
        f"error: {deployment.path}: [ctlplugin:sio] colour: supervisord has no %(here)s for this; "
        "write the directory itself"
    )


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
        "[eventlistener:b] command: a second router besides [eventlistener:sio]" in line
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
    assert "listen: 0.0.0.0:9001: [inet_http_server] uses this port too; change one" in line
    deployment.set("inet_http_server", port="*:9001")
    deployment.set("rpcinterface:sio", listen="127.0.0.1:9001")
    (line,) = deployment.lines()
    assert "listen: 127.0.0.1:9001: [inet_http_server] uses this port too; change one" in line
    # Another address of the same port is another place.
    deployment.set("inet_http_server", port="127.0.0.1:9001")
    deployment.set("rpcinterface:sio", listen="127.0.0.2:9001")
    assert deployment.lines() == []


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


# --- the command ---------------------------------------------------------------------


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
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
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
