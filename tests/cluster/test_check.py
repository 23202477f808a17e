"""``supervisor-sio check`` and ``init`` as they are installed."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from .conftest import Clients, ClusterFactory
from .harness import BIN, HERE, Cluster, environment, free_port, server_environment
from .modes import NO_WORKER
from .test_listeners import view_for_all

pytestmark = NO_WORKER

ROOT = HERE.parents[1]

#: Who runs the programs of a supervisord that root starts: it is said, so `check` is content.
AS_ROOT = "root" if os.getuid() == 0 else ""


def supervisor_sio(
    *arguments: str, cwd: Path = ROOT, wrapper: Sequence[str] = ()
) -> tuple[int, str]:
    """The exit status, and all that the command says."""
    done = subprocess.run(
        [*wrapper, BIN / "supervisor-sio", *arguments],
        check=False,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        env=environment(PYTHONIOENCODING="utf-8"),
    )
    return done.returncode, done.stdout


def check(cluster: Cluster) -> tuple[int, str]:
    cluster.write_config()
    # The files that it sees are those that supervisord will see.
    return supervisor_sio("check", str(cluster.conf), wrapper=cluster.wrapper)


def test_the_shipped_deployment_is_sound(tmp_path: Path) -> None:
    """At another port: port 8000 may be somebody else's on this host."""
    shutil.copytree(ROOT / "conf.d", tmp_path / "conf.d", ignore=shutil.ignore_patterns("*.sock"))
    conf = tmp_path / "conf.d" / "supervisord.conf"
    listen = f"127.0.0.1:{free_port()}"
    conf.write_text(conf.read_text().replace("127.0.0.1:8000", listen))
    before = sorted(path.name for path in conf.parent.iterdir())
    status, said = supervisor_sio("check", "conf.d/supervisord.conf", cwd=tmp_path)
    verdict = "2 warnings" if AS_ROOT else "sound"
    assert said.endswith(
        f"conf.d/supervisord.conf: {verdict} (listen {listen}, 1 router, workers: workers × 2)\n"
    )
    assert said.count("runs as root and reads input from the internet") == (2 if AS_ROOT else 0)
    assert status == 0
    assert sorted(path.name for path in conf.parent.iterdir()) == before


def test_what_is_sound_starts(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1, startsecs=1, user=AS_ROOT)
    status, said = check(cluster)
    assert status == 0
    assert said == (
        f"{cluster.conf}: sound (listen 127.0.0.1:{cluster.port}, 1 router, workers: workers × 1)\n"
    )
    cluster.start()
    # And stays so while it runs: the port is in use by whom it should be.
    assert check(cluster) == (status, said)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives processes to other users")
def test_what_is_advised_for_workers_of_another_user_works(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
    cluster = make_cluster(
        workers=1,
        startsecs=1,
        user="nobody",
        wrapper=view_for_all(),
        chown=f"root:{group}",
        chmod="0710",
    )
    cluster.short.chmod(0o755)
    status, said = check(cluster)
    assert (status, "sound (" in said) == (0, True), said
    cluster.start()
    for client in clients.mixed(cluster, 4):
        assert client.call("echo", 1) == 1
    assert cluster.run_dir.stat().st_mode & 0o777 == 0o710


def test_what_init_prints_starts(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=0, plugin=False, router=False)
    status, sections = supervisor_sio(
        "init", "cluster_app:app", "--listen", f"127.0.0.1:{cluster.port}", "--workers", "2"
    )
    assert status == 0
    main, _, rest = sections.partition("; --- Below them")
    # The one that the harness has.
    main = main.partition('; "supervisorctl sio')[0]
    cluster.extra = f"{main}\n;{rest}\ndirectory = {HERE}\n"
    status, said = check(cluster)
    verdict = "2 warnings (" if AS_ROOT else "sound ("
    assert (status, verdict in said) == (0, True), said
    cluster.spawn()
    cluster.wait_ready(2)


def test_what_init_prints_in_full_is_all_it_takes(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster()
    status, printed = supervisor_sio(
        *("init", "--full", 'factory_app:create_app("production", debug=False)'),
        *("--workers", "2"),
        *("--listen", f"127.0.0.1:{cluster.port}"),
    )
    assert status == 0
    # Paths of Unix sockets are short, pytest's directories are not.
    cluster.conf, cluster.socket = (
        cluster.short / name for name in ("supervisord.conf", "supervisor.sock")
    )
    cluster.conf.write_text(printed)
    status, said = supervisor_sio("check", str(cluster.conf))
    assert status == 0, said
    with open(cluster.directory / "supervisord.out", "ab") as output:
        cluster.adopt(
            subprocess.Popen(
                [BIN / "supervisord", "-n", "-c", cluster.conf],
                cwd=HERE,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=server_environment(ASYNC_MODE="eventlet"),
                start_new_session=True,
            )
        )
    cluster.wait_ready(2)
    done = cluster.ctl("sio", "status")
    assert done.returncode == 0 and f"listen   127.0.0.1:{cluster.port}\n" in done.stdout


def test_what_is_wrong_does_not_start(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(lisen="127.0.0.1:1", user=AS_ROOT)
    status, said = check(cluster)
    assert status == 1
    reason = "[rpcinterface:sio] lisen: unknown option; did you mean 'listen'?\n"
    assert f"error: {cluster.conf}: {reason}" in said
    assert said.endswith(f"{cluster.conf}: 1 error, 1 warning\n")  # startsecs = 0
    code, printed = cluster.run_to_its_end()
    assert code == 2
    assert reason in printed


@pytest.mark.parametrize(
    ("options", "http", "sound"),
    [
        ({"listen": "0.0.0.0:{0.port}, 127.0.0.1:{0.port}"}, None, False),
        ({"metrics": "0.0.0.0:{0.port}"}, None, False),
        ({"listen": "unix:{0.socket}"}, None, False),
        ({"listen": "127.0.0.1:{0.port}"}, "*:{0.port}", False),
        ({"listen": "127.0.0.2:{0.port}"}, "127.0.0.1:{0.port}", True),
        ({"listen": "127.0.0.1:{0.port}, 127.0.0.2:{0.port}"}, None, True),
    ],
)
def test_supervisord_agrees_about_addresses(
    make_cluster: ClusterFactory, options: dict[str, str], http: str | None, sound: bool
) -> None:
    cluster = make_cluster(workers=1, startsecs=1)
    cluster.settings.update({name: text.format(cluster) for name, text in options.items()})
    if http:
        port = http.format(cluster)
        cluster.extra = f"[inet_http_server]\nport = {port}\nusername = u\npassword = p\n"
    status, said = check(cluster)
    assert (status == 0) == sound, said
    if sound:
        cluster.start()
    else:
        code, printed = cluster.run_to_its_end()
        assert (code, "address already in use" in printed) == (2, True), printed


THREADS = """\
import threading, time

import socketio
from supervisor_sio import AsyncZmqManager, ZmqManager

def poll():
    while True:
        time.sleep(1)

threading.Thread(target=poll, name="poll").start()
threading.Thread(target=poll, name="quiet", daemon=True).start()

{end}
"""

GOOD = {
    "eventlet": """\
sio = socketio.Server(async_mode="eventlet", client_manager=ZmqManager())
app = socketio.WSGIApp(sio)""",
    "asyncio": """\
sio = socketio.AsyncServer(async_mode="asgi", client_manager=AsyncZmqManager())
app = socketio.ASGIApp(sio)""",
    "threading": """\
sio = socketio.Server(async_mode="threading", client_manager=ZmqManager())
app = socketio.WSGIApp(sio)""",
}


@pytest.mark.parametrize("mode", GOOD)
def test_an_application_whose_threads_do_not_end(tmp_path: Path, mode: str) -> None:
    (tmp_path / "myapp.py").write_text(THREADS.format(end=GOOD[mode]))
    words = ["check", "--app", "myapp:app", "--async-mode", mode]
    status, said = supervisor_sio(*words, cwd=tmp_path)
    assert status == 0, said
    left = "importing myapp:app has started threads with daemon=False, which is not an error: poll"
    assert said.splitlines()[-1] == left
    assert "has no handlers" in said

    (tmp_path / "myapp.py").write_text(THREADS.format(end="1 / 0"))
    status, said = supervisor_sio(*words, cwd=tmp_path)
    assert status == 1 and "ZeroDivisionError" in said, said
    assert said.splitlines()[-1] == left


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_application_whose_threads_do_not_end_and_a_reader_that_does(
    tmp_path: Path, unbuffered: str
) -> None:
    """As with ``| head -0``: no traceback, and no process that stays."""
    (tmp_path / "myapp.py").write_text(THREADS.format(end=GOOD["threading"]))
    command = [BIN / "supervisor-sio", "check", "--app", "myapp:app", "--async-mode", "threading"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONUNBUFFERED=unbuffered),
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.close()
            assert process.wait(60) == 0
            assert process.stderr is not None and process.stderr.read() == ""
        finally:
            process.kill()


def test_what_cannot_be_read() -> None:
    for path, reason in (("no/such.conf", "no such file or directory"), ("conf.d", "is a dir")):
        status, said = supervisor_sio("check", path)
        assert status == 2
        assert said.startswith(f"supervisor-sio check: error: {path}: {reason}")
        assert said.count("\n") == 1
