"""A package is looked for in the Python that needs it, and in no other one."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import urllib.request
from pathlib import Path

from cluster.conftest import Clients, ClusterFactory
from cluster.harness import BIN, ROUTER, Cluster, free_port, wait_until
from cluster.modes import NO_WORKER
from cluster.test_check import check

pytestmark = NO_WORKER

#: Some packages of our environment are missing in this Python.
HIDES = "import sys; sys.modules.update(dict.fromkeys({names!r}))\n"


def make_python(directory: Path, *hidden: str) -> Path:
    """A virtual environment with all that ours has, but for these; its ``supervisor-sio``."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    python = directory / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.strip()
    # addsitedir() also follows the .pth of an editable install.
    ours = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    # Not by sitecustomize: Debian's Python has one of its own, and finds that first.
    (Path(purelib) / "ours.pth").write_text(ours + HIDES.format(names=hidden))
    script = directory / "bin" / "supervisor-sio"
    body = (BIN / "supervisor-sio").read_text().partition("\n")[2]
    script.write_text(f"#!{python}\n{body}")
    script.chmod(0o755)
    return script


def with_router_of(make_cluster: ClusterFactory, script: Path) -> Cluster:
    cluster = make_cluster(
        workers=1,
        router=False,
        startsecs=1,
        metrics=f"127.0.0.1:{free_port()}",
        message_queue=f"redis://127.0.0.1:{free_port()}",
    )
    section = ROUTER.format(directory=cluster.directory, user="")
    cluster.extra = section.replace("= supervisor-sio", f"= {script}")
    return cluster


def test_packages_that_supervisord_lacks_and_the_router_has(
    make_cluster: ClusterFactory, tmp_path: Path
) -> None:
    """As Debian's supervisor with the application in a virtual environment."""
    cluster = with_router_of(make_cluster, BIN / "supervisor-sio")
    supervisord = make_python(tmp_path / "debian", "redis", "prometheus_client")
    cluster.wrapper = [str(supervisord.parent / "python")]
    cluster.start()
    with urllib.request.urlopen(f"http://{cluster.settings['metrics']}/healthz") as answer:
        assert answer.status == 200
    assert cluster.status()["router"]["faults"] == []
    assert "away" in cluster.ctl("sio", "status").stdout  # nobody is at that port


def test_packages_that_the_router_lacks(
    make_cluster: ClusterFactory, clients: Clients, tmp_path: Path
) -> None:
    script = make_python(tmp_path / "venv", "redis", "prometheus_client")
    python = script.parent / "python"
    cluster = with_router_of(make_cluster, script)
    code, said = check(cluster)
    assert code == 1
    cluster.start()  # clients are served
    assert clients.connect(cluster).call("echo", 1) == 1
    done = cluster.ctl("sio", "status")
    assert done.returncode == 3
    for option, package, extra in (
        ("metrics", "prometheus_client", "metrics"),
        ("message_queue", "redis", "redis"),
    ):
        install = f"{python} -m pip install 'supervisor-sio[{extra}]'"
        fault = f"{option}: needs the {package} package: {install}"
        line = f"[rpcinterface:sio] {fault}"
        wait_until(lambda text=line: text in cluster.log("router"), 5, line)  # type: ignore[misc]
        assert f"fault    {fault}" in done.stdout
        found = f"{option}: needs the {package} package in the Python of [eventlistener:sio]"
        assert f"[rpcinterface:sio] {found}: {install}" in said


def test_a_worker_whose_python_lacks_eventlet(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    script = make_python(tmp_path / "venv", "eventlet")
    cluster = make_cluster(workers=1, startsecs=1, command=f"{script} worker cluster_app:app")
    code, said = check(cluster)
    assert code == 1
    python = script.parent / "python"
    assert f"[program:workers] command: its Python, {python}, has no eventlet: " in said
