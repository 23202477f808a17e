"""Debian's supervisor, as docs/howto/debian.md has it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from .conftest import Clients, ClusterFactory
from .harness import BIN, HERE, Cluster, environment, free_port, server_environment
from .modes import NO_WORKER

pytestmark = NO_WORKER

ROOT = HERE.parents[1]
PAGE = (ROOT / "docs" / "howto" / "debian.md").read_text()

SUPERVISORD = Path("/usr/bin/supervisord")

#: As in Debian 12 and 13, whatever this host has made of its own.
DEBIANS = """\
[unix_http_server]
file=/var/run/supervisor.sock
chmod=0700

[supervisord]
logfile=/var/log/supervisor/supervisord.log
pidfile=/var/run/supervisord.pid
childlogdir=/var/log/supervisor

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix:///var/run/supervisor.sock

[include]
files = /etc/supervisor/conf.d/*.conf
"""


@pytest.fixture(autouse=True)
def package() -> None:
    if not SUPERVISORD.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Debian package supervisor")


def block(language: str, contains: str) -> str:
    """The first one of the page."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return next(text for text in found if contains in text)


class Debian:
    """A cluster with Debian's directories below its own."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.etc = cluster.directory / "supervisor"
        (self.etc / "conf.d").mkdir(parents=True)
        #: What the page has pip put into `dist-packages`: this package, and nothing else.
        self.plugin = cluster.directory / "plugin"
        self.plugin.mkdir()
        (self.plugin / "supervisor_sio").symlink_to(ROOT / "supervisor_sio")
        cluster.conf = self.etc / "supervisord.conf"
        cluster.socket = cluster.short / "supervisor.sock"
        ctlplugin = block("sh", "tee").partition("END'\n")[2].rpartition("END\n")[0]
        cluster.conf.write_text(self._here(DEBIANS + ctlplugin))
        program = self._here(block("ini", "[rpcinterface:sio]"))
        (self.etc / "conf.d" / "myapp.conf").write_text(
            re.sub(r"^(user|chown) = .*\n", "", program, flags=re.MULTILINE)
        )

    def _here(self, text: str) -> str:
        for path, ours in {
            "/var/run": self._cluster.short,
            "/run/myapp-sio": self._cluster.run_dir,
            "/var/log/supervisor": self._cluster.directory,
            "/etc/supervisor": self.etc,
            "/srv/myapp/venv/bin": BIN,
            "/srv/myapp": HERE,
            "0.0.0.0:8000": f"127.0.0.1:{self._cluster.port}",
            "--async-mode asyncio myapp:app": "cluster_app:app",
        }.items():
            text = text.replace(path, str(ours))
        return text

    def command(self, name: str, *arguments: str) -> list[str]:
        return [f"/usr/bin/{name}", "-c", str(self._cluster.conf), *arguments]

    def environment(self, plugin: Path) -> dict[str, str]:
        variables = server_environment(PATH="/usr/sbin:/usr/bin:/sbin:/bin")
        variables["PYTHONPATH"] = f"{plugin}:{variables['PYTHONPATH']}"
        return variables

    def start(self) -> None:
        with open(self._cluster.directory / "supervisord.out", "ab") as output:
            process = subprocess.Popen(
                self.command("supervisord", "-n"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment(self.plugin),
                start_new_session=True,
            )
        self._cluster.adopt(process)
        self._cluster.wait_ready(2)

    def run(self, plugin: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            env=self.environment(plugin),
        )


def test_workers_of_a_virtual_environment(make_cluster: ClusterFactory, clients: Clients) -> None:
    """supervisord's Python has nothing of ours but the package itself."""
    cluster = make_cluster()
    debian = Debian(cluster)
    done = debian.run(
        debian.plugin, str(BIN / "supervisor-sio"), "check", str(cluster.conf)
    )  # `user` was taken out
    assert done.stdout.count("runs as root and reads input") == (2 if os.getuid() == 0 else 0)
    assert done.returncode == 0, done.stdout
    debian.start()
    one, other = (clients.connect(cluster) for _ in range(2))
    assert one.call("whoami")["pid"] != other.call("whoami")["pid"]
    done = debian.run(debian.plugin, *debian.command("supervisorctl", "sio", "status"))
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ready") == 2


def test_what_is_said_without_the_plugin(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """The page has it to look for."""
    debian = Debian(make_cluster())
    # Hides one that somebody has installed there.
    (tmp_path / "supervisor_sio.py").write_text("raise ModuleNotFoundError\n")
    for program, factory, section in (
        ("supervisord", "supervisor_sio.rpcinterface:make_rpcinterface", "[rpcinterface:sio]"),
        ("supervisorctl", "supervisor_sio.ctlplugin:make_ctlplugin", "[ctlplugin:sio]"),
    ):
        done = debian.run(tmp_path, *debian.command(program))
        assert done.returncode == 2
        assert f"Error: {factory} cannot be resolved within {section}" in done.stdout
        assert factory in PAGE


def test_the_copy_of_the_package_that_supervisord_has_runs_no_router(
    make_cluster: ClusterFactory,
) -> None:
    debian = Debian(make_cluster())
    script = "from supervisor_sio.cli import main; raise SystemExit(main())"
    for words in (["router"], ["worker", "cluster_app:app"]):
        done = debian.run(debian.plugin, "/usr/bin/python3", "-c", script, *words)
        assert done.returncode == 1
        error, said = re.fullmatch(r"(.* error: \S+ has no) \w+: (.*)\n", done.stdout).groups()
        assert error == f"supervisor-sio {words[0]}: error: /usr/bin/python3 has no"
        assert "docs/howto/debian.md" in said


#: An administrator's shell: Debian's directories are empty ones, for this shell and what it starts.
WALK = r"""
set -eu
mount --make-rprivate /
mount -t tmpfs walk /srv
mkdir -p /srv/myapp /srv/.kept
for directory in /usr/local/bin /usr/local/lib/python3*/dist-packages /etc/supervisor /var/log /run
do
    kept=/srv/.kept/$directory
    mkdir -p "$kept/upper" "$kept/work"
    mount -t overlay walk -o "lowerdir=$directory,upperdir=$kept/upper,workdir=$kept/work" \
        "$directory"
done
mkdir -p /var/log/supervisor /etc/supervisor/conf.d
cp "$1/supervisord.conf" /etc/supervisor/supervisord.conf
cp "$1/myapp.conf" /etc/supervisor/conf.d/myapp.conf
cp "$1/myapp.py" /srv/myapp/myapp.py
/usr/bin/python3 -m venv /srv/myapp/venv
# With what we depend on, in place of a minute of downloads.
echo "import site; site.addsitedir('$2')" \
    >"$(echo /srv/myapp/venv/lib/python3*/site-packages)/dependencies.pth"

sudo() {
    if test "$1" = -u
    then
        user=$2
        shift 2
        runuser -u "$user" -- "$@"
    else "$@"
    fi
}
systemctl() {
    test "$*" = "restart supervisor"
    /usr/bin/supervisord -c /etc/supervisor/supervisord.conf
    tries=200
    until supervisorctl sio status >/dev/null || test $tries = 0
    do
        tries=$((tries - 1)); sleep 0.2
    done
}
. "$1/page.sh"
supervisorctl sio status --json
supervisorctl shutdown
"""

APPLICATION = """\
import socketio
from supervisor_sio import AsyncZmqManager

sio = socketio.AsyncServer(async_mode="asgi", client_manager=AsyncZmqManager())
app = socketio.ASGIApp(sio)
"""


@pytest.mark.long
@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts everywhere")
@pytest.mark.skipif(
    "{}.{}".format(*sys.version_info) not in os.path.realpath("/usr/bin/python3"),
    reason="Debian's Python is another one: it cannot use what is installed here",
)
def test_each_command_of_the_page(tmp_path: Path) -> None:
    """Typed as it stands, in its order, but for the port; with pip, and the real directories."""
    wheels = tmp_path / "wheels"
    pip = [str(BIN / "python"), "-m", "pip", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(wheels), str(ROOT)], check=True)
    (tmp_path / "supervisord.conf").write_text(DEBIANS)
    program = block("ini", "[rpcinterface:sio]")
    (tmp_path / "myapp.conf").write_text(
        program.replace("0.0.0.0:8000", f"127.0.0.1:{free_port()}")
    )
    (tmp_path / "myapp.py").write_text(APPLICATION)
    upgrade = PAGE.partition("## Upgrade")[2].partition("\n## ")[0]
    steps = PAGE.partition("## What goes wrong")[0] + upgrade
    (tmp_path / "page.sh").write_text("".join(re.findall(r"```sh\n(.*?)```", steps, re.DOTALL)))
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    variables = environment(
        PIP_FIND_LINKS=str(wheels),
        PIP_NO_DEPS="1",
        PIP_IGNORE_INSTALLED="1",
        PATH="/usr/local/bin:/usr/bin:/usr/sbin:/bin",
    )
    variables.pop("PYTHONPATH")
    done = subprocess.run(
        [*namespaces, "bash", "-c", WALK, "walk", str(tmp_path), sysconfig.get_path("purelib")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        env=variables,
    )
    assert done.returncode == 0, done.stdout
    assert "supervisord.conf: sound (" in done.stdout
    assert "myapp:app: ASGIApp, imported in" in done.stdout
    assert done.stdout.count('"state": "ready"') == 2, done.stdout
