"""Each command that a page of the documents shows does what it says, in the page's order."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import psutil
import pytest
import requests
import socketio
from unit.test_snippets import DOCUMENTS, blocks

from .harness import free_port, wait_until
from .modes import OWN_MODES
from .reader import Reader
from .test_tls import make_certificate

pytestmark = [OWN_MODES, pytest.mark.long]

PAGES = {page.name: page for page in DOCUMENTS}

#: Pages whose commands other tests run, or which need what is not here.
ELSEWHERE = {
    "README.md": "test_tutorial.py",
    "tutorial.md": "test_tutorial.py",
    "frameworks.md": "test_tutorial.py",
    "debian.md": "test_debian.py, and below",
    "docker.md": "test_container.py: there is no Docker",
    "systemd.md": "test_systemd.py: systemd does not run",
    "proxies.md": "a2enmod of Debian's Apache; tests/cluster/proxies.py starts Apache without it",
}

#: The session ID in the examples.
SID = "7db8858d.x0Yb3vVQ2lq4AAAA"


class Client:
    """A client that reconnects to the deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self.heard: Queue[Any] = Queue()
        session = requests.Session()
        session.verify = str(deployment.cert)
        session.trust_env = False
        self._client = socketio.Client(
            http_session=session,
            websocket_extra_options={"sslopt": {"ca_certs": session.verify}},
            reconnection_delay=0.1,
        )
        self._client.on("*", lambda event, *data: self.heard.put((event, *data)))
        self._client.connect(deployment.url)

    @property
    def sid(self) -> str:
        client = self._client
        wait_until(lambda: client.connected and client.get_sid(), 30, "it is connected")
        sid: str = client.get_sid()
        return sid

    def wait_disconnected(self) -> None:
        wait_until(lambda: not self._client.connected, 20, "it is disconnected")

    def close(self) -> None:
        self._client.shutdown()


class Deployment:
    """Two workers with TLS, in the directory of a reader."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.url = f"https://127.0.0.1:{reader.port}"
        self.cert = reader.directory / "fullchain.pem"
        self._ssl = reader.directory / "ssl"
        (self._ssl / "private").mkdir(parents=True)
        cert, key = make_certificate(reader.directory)
        shutil.copy(cert, self._ssl / "example.org.pem")
        shutil.copy(key, self._ssl / "private" / "example.org.key")
        cert.rename(self.cert)
        key.rename(reader.directory / "privkey.pem")
        reader.environment.update(RENEWED_LINEAGE=str(reader.directory), PYTHONUNBUFFERED="1")
        (reader.directory / "myapp.py").write_text(next(blocks(PAGES["frameworks.md"], "python")))
        reader.type(
            "supervisor-sio init --full --async-mode asyncio --workers 2"
            f" --listen 127.0.0.1:{reader.port} myapp:app > supervisord.conf"
        )
        conf = reader.directory / "supervisord.conf"
        (options,) = (text for text in blocks(PAGES["tls.md"], "ini") if "tls_keyfile" in text)
        listen = f"listen = 127.0.0.1:{reader.port}\n"
        assert listen in conf.read_text()
        options = re.sub(r"^(\[|supervisor\.|listen).*\n", "", options, flags=re.MULTILINE)
        conf.write_text(conf.read_text().replace(listen, listen + self._here(options)))
        reader.type("supervisord -c supervisord.conf")
        reader.wait_ready(2)

    def _here(self, text: str) -> str:
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        for theirs, ours in {
            "/etc/supervisord.conf": f"{self._reader.directory}/supervisord.conf",
            "/etc/ssl": str(self._ssl),
            "root:www-data": f"{user}:{group}",
            "www-data": group,
        }.items():
            text = text.replace(theirs, ours)
        return text

    def type(self, command: str) -> str:
        command = self._here(command)
        return self._follow(command) if " tail -f " in command else self._reader.type(command)

    def _follow(self, command: str) -> str:
        """Of a command that prints until somebody presses Ctrl-C, the first line."""
        following = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=self._reader.directory,
            env=self._reader.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert following.stdout is not None
        with following.stdout as output:
            first = output.readline()
            following.terminate()
        following.wait(20)
        assert "Ctrl-C" in first
        return first

    def restore(self) -> None:
        """The two workers run, whatever another page has left."""
        self._reader.type(
            "supervisorctl start workers:* || :\n"
            "until supervisorctl sio status; do sleep 0.1; done\n"
            "supervisorctl sio scale workers 2"
        )


def commands(page: Path) -> list[str]:
    """A script is one of them."""
    found: list[str] = []
    for text in blocks(page, "sh"):
        lines = [text] if text.startswith("#!") else text.replace("\\\n", "").splitlines()
        found += (line for line in lines if line and not line.startswith("pip install"))
    return found


#: Those that have commands to type here.
TYPED = [page for name, page in PAGES.items() if name not in ELSEWHERE and commands(page)]


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    pytest.importorskip("fastapi")
    reader = Reader(free_port())
    try:
        yield Deployment(reader)
        _shut_down(reader)
    finally:
        reader.clean_up()


@pytest.mark.parametrize("page", TYPED, ids=lambda page: page.stem)
def test_each_command_of_the_page(deployment: Deployment, page: Path) -> None:
    deployment.restore()
    client, other = clients = [Client(deployment) for _ in range(2)]
    try:
        for command in commands(page):
            sid = client.sid if " emit " in command or SID in command else ""
            said = deployment.type(command.replace(SID, sid))
            if " emit news '{" in command:
                assert client.heard.get(timeout=20) == ("news", {"text": "hello"})
                assert other.heard.get(timeout=20) == ("news", {"text": "hello"})
            elif " emit bye " in command:
                assert client.heard.get(timeout=20) == ("bye",)
            elif " kick " in command:
                client.wait_disconnected()
            elif command.startswith("supervisorctl sio status"):
                assert "workers:workers_00" in said
        assert other.heard.empty()
    finally:
        for each in clients:
            each.close()


def test_only_such_pages_are_left_out() -> None:
    assert ELSEWHERE.keys() <= PAGES.keys()
    assert all(any(blocks(PAGES[name], "sh")) for name in ELSEWHERE)


def test_a_supervisord_of_ones_own(reader: Reader) -> None:
    """The last part of the page on Debian."""
    pytest.importorskip("fastapi")
    (reader.directory / "myapp.py").write_text(next(blocks(PAGES["frameworks.md"], "python")))
    (text,) = (text for text in blocks(PAGES["debian.md"], "sh") if "\nvenv/bin/" in text)
    made, installed, init, *others, status = text.splitlines()
    assert made == "python3 -m venv venv" and " install " in installed
    (reader.directory / "venv").symlink_to(sys.prefix)
    reader.type(init.replace("init --full", f"init --full --listen 127.0.0.1:{reader.port}"))
    reader.type("\n".join(others))
    reader.wait_ready(2)
    assert reader.type(status).count("ready") == 2
    _shut_down(reader)


def _shut_down(reader: Reader) -> None:
    pid = reader.supervisord
    reader.type("supervisorctl shutdown")
    wait_until(lambda: not psutil.pid_exists(pid), 30, "supervisord has ended")
