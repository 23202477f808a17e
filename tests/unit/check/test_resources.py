from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest

from supervisor_sio.common.addresses import parse_address
from supervisor_sio.supervisord import listeners
from unit.check.deployment import NOBODY, PYTHON, Deployment, as_root, host_with


def test_a_low_limit_of_descriptors(deployment: Deployment) -> None:
    deployment.set("supervisord", user=str(NOBODY.pw_uid))
    lines = [line for line in deployment.lines(host_with(descriptors=1024)) if "minfds" in line]
    assert len(lines) == 1
    assert lines[0].startswith("warning: ")
    assert "fewer than 1024 clients; raise LimitNOFILE=" in lines[0]
    deployment.set("supervisord", minfds="8192")
    lines = [line for line in deployment.lines(host_with(descriptors=1024)) if "minfds" in line]
    assert len(lines) == 2
    assert "8192 is more than the hard limit here, 1024, and only root may" in lines[0]


def test_minfds_raises_the_limit_of_root(deployment: Deployment) -> None:
    deployment.set("supervisord", user="root")
    (line,) = deployment.lines(host_with(descriptors=512))
    assert "fewer than 1024 clients; write minfds = 65536, or raise LimitNOFILE=" in line
    deployment.set("supervisord", minfds="8192")
    assert deployment.lines(host_with(descriptors=512)) == []


def test_a_low_port(deployment: Deployment) -> None:
    deployment.set("rpcinterface:sio", listen="127.0.0.1:1023")
    assert not any("1023" in line for line in deployment.lines(host_with(uid=0)))
    deployment.set("supervisord", user=str(NOBODY.pw_uid))
    lines = [line for line in deployment.lines() if "listen: 127.0.0.1:1023: a port below" in line]
    assert lines
    assert lines[0].startswith("warning: ")
    assert not any("a port below" in line for line in deployment.lines(host_with(first_port=80)))


def test_a_file_where_a_socket_should_be(deployment: Deployment) -> None:
    deployment.set("rpcinterface:sio", listen=f"unix:{deployment.path}")
    (line,) = deployment.lines()
    assert line.endswith("this file is not a socket; remove it, or use another path")


def test_a_socket_of_supervisord_that_it_cannot_make(deployment: Deployment) -> None:
    path = f"/tmp/{'x' * 95}"
    deployment.set("unix_http_server", file=path).set("supervisorctl", serverurl=f"unix://{path}")
    (line,) = deployment.lines()
    assert "[unix_http_server] file: the path of this Unix socket has more than 99 b" in line
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
            "listen: 127.0.0.1:{port}: listen 0.0.0.0:{port} uses this port too; change one of",
        ),
        (
            {"listen": "127.0.0.1:{port}", "metrics": "0.0.0.0:{port}"},
            "metrics: 0.0.0.0:{port}: listen 127.0.0.1:{port} uses this port too; change one of",
        ),
        (
            {"metrics": "unix:{directory}/link/port.sock"},
            "metrics: unix:{directory}/link/port.sock: listen unix:{directory}/port.sock uses ",
        ),
        (
            {"listen": "unix:{directory}/s.sock"},
            "listen: unix:{directory}/s.sock: [unix_http_server] uses this path too; change one of",
        ),
        (
            {"listen": "unix:{directory}/link/s.sock"},
            "listen: unix:{directory}/link/s.sock: [unix_http_server] uses this path too; change",
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
        "127.0.0.3 and 127.0.0.2 here, and supervisord listens at 127.0.0.3 only; write "
        "one of them, or each of them in listen"
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
        f"sockets in run_dir; workers and emitters only need to enter it: "
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
        assert f"{name} may not enter {there}, which has the run directory; set run_dir" in line
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
