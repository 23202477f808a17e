"""What other users and other programs of the host get of a cluster: no more than they need."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import socket
import stat
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import BIN, Cluster, free_port, wait_until
from cluster.modes import NO_WORKER
from cluster.test_check import check
from cluster.test_listeners import view_for_all
from cluster.test_tls import make_certificate, request

pytestmark = NO_WORKER

HERE = Path(__file__).parent

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root gives processes to other users")

FIRST_PORT = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())

#: An event listener that asks for the ports, and says what it got.
ASKS = """
import contextlib, os, socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect(os.environ["SUPERVISOR_SIO_RUN_DIR"] + "/supervisord.sock")
with contextlib.suppress(BrokenPipeError):  # it may be refused before it asks
    sock.send(b'{"type": "hello", "version": 1, "role": "router"}')
answer = sock.recv(65536)
print(answer.decode(), file=sys.stderr, flush=True)
sys.stdin.read()
"""


def test_another_event_listener_gets_neither_ports_nor_password(
    make_cluster: ClusterFactory, tmp_path: Path
) -> None:
    script = tmp_path / "asks.py"
    script.write_text(ASKS)
    log = tmp_path / "asks.log"
    # It starts first, so that no router is there yet.
    extra = (
        f"[eventlistener:asks]\ncommand = {sys.executable} {script}\nevents = TICK_3600\n"
        f"priority = -5\nstderr_logfile = {log}\n"
    )
    cluster = make_cluster(
        workers=1, extra=extra, message_queue=f"redis://:secret@127.0.0.1:{free_port()}/0"
    ).start()
    wait_until(lambda: log.exists() and log.read_text(), 10, "its answer")
    assert '"type":"refused"' in log.read_text() and "secret" not in log.read_text()
    assert cluster.status()["router"]["pid"]


def test_a_link_in_a_race_opens_no_other_file(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch(0o600)
    cluster = make_cluster(workers=1)
    path = cluster.short / "public.sock"
    cluster.settings["listen"] += f", unix:{path}"
    site = tmp_path / "site"
    site.mkdir()
    shutil.copy(HERE / "races.py", site / "sitecustomize.py")
    race = [f"RACE_PATH={path}", f"RACE_VICTIM={victim}", f"PYTHONPATH={site}"]
    cluster.wrapper = ["env", *race]
    cluster.start()
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.lstat().st_mode) == 0o666
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))


@as_root
@pytest.mark.skipif(FIRST_PORT <= 81, reason="every port is for everybody here")
def test_a_low_port_of_a_supervisord_that_gave_root_up_names_the_cause(
    make_cluster: ClusterFactory,
) -> None:
    cluster = make_cluster(workers=1, listen="127.0.0.1:81", wrapper=view_for_all())
    for directory in (cluster.short, cluster.directory):
        os.chown(directory, pwd.getpwnam("nobody").pw_uid, -1)
    cluster.write_config()
    text = cluster.conf.read_text().replace("[supervisord]", "[supervisord]\nuser = nobody")
    text = text.replace(str(cluster.directory), str(cluster.short))
    cluster.write_config = lambda: None  # type: ignore[method-assign]
    cluster.conf = cluster.short / "supervisord.conf"
    cluster.conf.write_text(text)
    code, printed = cluster.run_to_its_end()
    assert code == 2 and printed.count("Error: ") == 1
    assert printed.strip().endswith(
        "Error: [rpcinterface:sio] listen: 127.0.0.1:81: permission denied: only root may open a "
        "port this low, and user = nobody in [supervisord] drops root's rights before ports are "
        "opened; move user to the sections of the programs, or use a "
        "higher port"
    )


def without_our_python(cluster: Cluster) -> Cluster:
    """As where supervisord is started by its full path: its directory is not on the PATH."""
    cluster.wrapper = ["env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    return cluster


def test_no_program_gets_another_path(
    make_cluster: ClusterFactory, clients: Clients, tmp_path: Path
) -> None:
    extra = f"[program:plain]\ncommand = sh -c 'env > {tmp_path}/env; exec sleep 600'\n"
    cluster = without_our_python(make_cluster(workers=1, extra=extra)).start()
    written = tmp_path / "env"
    wait_until(lambda: written.exists() and "PATH=" in written.read_text(), 10, "its environment")
    path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
    assert path in written.read_text().splitlines()
    # Ours are found all the same, also those that come later.
    status = cluster.status()
    for pid in (status["router"]["pid"], status["workers"][0]["pid"]):
        assert path.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    cluster.rpc.sio.scaleGroup("workers", 2)
    cluster.wait_ready(2)
    assert clients.connect(cluster).call("echo", 1) == 1
    assert cluster.rpc.supervisor.reloadConfig()[0][0] == []  # nothing is added
    assert not (Path("/usr/bin") / "supervisor-sio").exists() and BIN != Path("/usr/bin")


@as_root
def test_router_and_workers_of_another_user_do_all_they_should(
    make_cluster: ClusterFactory,
) -> None:
    """As README shows it: `user =` in both sections, with a port and a key that are root's."""
    nobody = pwd.getpwnam("nobody")
    cluster = make_cluster(
        startsecs=1,
        user="nobody",
        wrapper=view_for_all(),
        chown=f"root:{grp.getgrgid(nobody.pw_gid).gr_name}",
        chmod="0710",
        metrics=f"127.0.0.1:{free_port()}",
    )
    cluster.short.chmod(0o755)
    certificate, key = make_certificate(cluster.short)
    cluster.settings.update(tls_certfile=str(certificate), tls_keyfile=str(key))
    key.chmod(0o600)
    code, said = check(cluster)
    assert code == 1 and f"the router as nobody may not read {key}" in said
    os.chown(key, 0, nobody.pw_gid)
    key.chmod(0o640)
    code, said = check(cluster)
    assert (code, "sound (" in said) == (0, True), said
    cluster.start()
    status = cluster.status()
    for pid in (status["router"]["pid"], *(row["pid"] for row in status["workers"])):
        assert tuple(psutil.Process(pid).uids()) == (nobody.pw_uid,) * 3
    assert request(cluster, certificate, "/pid")[0].isdigit()
    with urllib.request.urlopen(f"http://{cluster.settings['metrics']}/healthz") as answer:
        assert answer.status == 200
    assert cluster.ctl("sio", "reload-tls").returncode == 0
    assert cluster.ctl("sio", "emit", "news").returncode == 0
    os.kill(status["router"]["pid"], signal.SIGKILL)
    cluster.wait_new_router(status["router"]["pid"])
    cluster.wait_ready()
    assert request(cluster, certificate, "/pid")[0].isdigit()
