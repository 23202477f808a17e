"""``supervisorctl sio scale``: processes come and go while the others work."""

from __future__ import annotations

import json
import os
import signal

import psutil
import pytest

from .conftest import Clients, ClusterFactory
from .harness import Cluster, wait_until
from .raw import Poller
from .setups import SetUps
from .supervisorctl import done_in

#: Many clients for a long time: not for every run of the tests.
pytestmark = pytest.mark.long

STAYS = (
    "workers: {count}; the configuration file still has numprocs = 2: change it there, or update, "
    "reload and a restart of supervisord go back to 2 (until then reread shows workers as changed)"
)


def name(number: int) -> str:
    return f"workers:workers_{number:02d}"


def scale(cluster: Cluster, numprocs: str, group: str = "workers") -> list[str]:
    """The lines that it prints; the workers of the new size are ready then."""
    done = cluster.ctl("sio", "scale", group, numprocs)
    assert done.returncode == 0, done.stdout
    lines = done_in(done.stdout)
    count = int(lines[-1].split()[1])
    assert f"ready: {count} of {count} worker" in done.stdout
    cluster.wait_ready(count)
    return lines


def refused(cluster: Cluster, group: str, numprocs: str) -> str:
    done = cluster.ctl("sio", "scale", group, numprocs)
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{group}: ERROR (") and line.endswith(")")
    return line[len(f"{group}: ERROR (") : -1]


def descriptors(cluster: Cluster) -> int:
    return len(os.listdir(f"/proc/{cluster.pid}/fd"))


def zombies(cluster: Cluster) -> list[int]:
    children = psutil.Process(cluster.pid).children()
    return [child.pid for child in children if child.status() == psutil.STATUS_ZOMBIE]


def pids(cluster: Cluster) -> dict[str, int]:
    return {row["name"]: row["pid"] for row in cluster.workers()}


def supervisor_status(cluster: Cluster) -> list[str]:
    """The running workers in plain ``supervisorctl status``."""
    lines = cluster.ctl("status").stdout.splitlines()
    return [line.split()[0] for line in lines if line.startswith("workers:") and "RUNNING" in line]


def test_no_set_up_fails(cluster: Cluster) -> None:
    before = descriptors(cluster)
    with SetUps(cluster) as made:
        # With the hint about the clients' spread, if one has a session at this moment.
        said = [line for line in scale(cluster, "4") if not line.endswith("them evenly")]
        assert said == [
            f"{name(2)}: added",
            f"{name(3)}: added",
            STAYS.format(count="4 processes"),
        ]
        missing = {row["tag"] for row in cluster.workers()}
        assert len(missing) == 4

        def all_have_sessions() -> bool:
            session = Poller(cluster.port)
            session.open()
            missing.discard(session.sid.partition(".")[0])
            return not missing

        wait_until(all_have_sessions, 30, "new sessions at every worker")
        assert scale(cluster, "2") == [
            f"{name(3)}: removed",
            f"{name(2)}: removed",
            "workers: 2 processes, as in the configuration file",
        ]
    print(f"scale 2, 4, 2: {made.completed} set-ups, failures {dict(made.failures)}")
    assert made.completed > 100
    assert not made.failures
    assert sorted(pids(cluster)) == supervisor_status(cluster) == [name(0), name(1)]
    assert zombies(cluster) == []
    wait_until(lambda: descriptors(cluster) <= before, 10, "no descriptor left")


def test_clients_of_removed_workers_come_back(cluster: Cluster, clients: Clients) -> None:
    scale(cluster, "+1")
    made = clients.mixed(cluster, 12)
    assert len({client.whoami()["name"] for client in made}) == 3
    scale(cluster, "1")
    for client in made:
        client.wait_talking()
    assert {client.whoami()["name"] for client in made} == {"workers_00"}


def test_supervisor_knows_the_added(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1).start()
    scale(cluster, "2")
    assert supervisor_status(cluster) == [name(0), name(1)]
    assert "workers_01.log" in cluster.logs()

    first = pids(cluster)
    done = cluster.ctl("restart", "workers:*")
    assert done.returncode == 0 and f"{name(1)}: started" in done.stdout
    cluster.wait_ready(2)
    second = pids(cluster)
    assert not set(first.values()) & set(second.values())

    done = cluster.ctl("sio", "reload")
    assert done.returncode == 0, done.stdout
    assert [line.partition(": reloaded")[0] for line in done_in(done.stdout)] == list(second)
    third = pids(cluster)
    assert not set(second.values()) & set(third.values())

    os.kill(third[name(1)], signal.SIGKILL)

    def restarted() -> bool:
        return pids(cluster).get(name(1), third[name(1)]) != third[name(1)]

    wait_until(restarted, 20, "a successor of the added worker")
    assert pids(cluster)[name(0)] == third[name(0)]

    assert cluster.ctl("stop", name(1)).returncode == 0
    done = cluster.ctl("sio", "scale", "workers", "1")
    assert done_in(done.stdout)[0] == f"{name(1)}: removed"
    assert f"{name(1)}: ERROR (no such process)" in cluster.ctl("start", name(1)).stdout


def test_up_and_down_and_update(cluster: Cluster) -> None:
    supervisord = cluster.pid
    before = descriptors(cluster)
    scale(cluster, "8")
    assert scale(cluster, "1", "workers:*") == [
        *[f"{name(number)}: removed" for number in range(7, 0, -1)],
        STAYS.format(count="1 process"),
    ]
    assert zombies(cluster) == []
    done = cluster.ctl("sio", "scale", "workers", "+2", "--json")
    assert done.returncode == 0 and json.loads(done.stdout) == {
        "ok": True,
        "group": "workers",
        "numprocs": 3,
        "added": [name(1), name(2)],
        "removed": [],
        "configured": 2,
        "ready": [name(0), name(1), name(2)],
        "not_ready": [],
    }
    cluster.wait_ready(3)
    assert scale(cluster, "3") == ["workers: 3 processes already"]
    old = pids(cluster)

    assert cluster.ctl("reread").stdout == "workers: changed\n"
    text = cluster.conf.read_text()
    cluster.conf.write_text(text.replace("numprocs = 2", "numprocs = 3"))
    assert cluster.ctl("reread").stdout == "No config updates to processes\n"
    assert cluster.ctl("update").stdout == ""
    assert pids(cluster) == old

    cluster.conf.write_text(text)
    done = cluster.ctl("update")
    assert done.stdout == "workers: stopped\nworkers: updated process group\n", done.stdout
    cluster.wait_ready(2)
    assert supervisor_status(cluster) == [name(0), name(1)]
    assert not set(pids(cluster).values()) & set(old.values())
    assert cluster.ctl("reread").stdout == "No config updates to processes\n"
    wait_until(lambda: descriptors(cluster) <= before, 10, "no descriptor left")

    cpus = len(os.sched_getaffinity(cluster.pid))
    scale(cluster, "max")
    assert len(pids(cluster)) == cpus
    assert cluster.ctl("reload").returncode == 0

    def as_configured() -> bool:
        return len(cluster.workers()) == 2 and name(2) not in str(cluster.status())

    wait_until(as_configured, 40, "the file's number after a reload")
    assert cluster.pid == supervisord and psutil.pid_exists(supervisord)
    assert not [log for log, text in cluster.logs().items() if "Traceback" in text]


EXTRA = """
[program:one]
command = sleep 1000
process_name = %(program_name)s_%(process_num)d
numprocs = 1

[program:two]
command = sleep 1000

[group:pair]
programs = one, two

[program:plain]
command = sleep 1000

[program:sleepers]
command = sleep 1000
process_name = %(program_name)s_%(process_num)d
numprocs = 9

[fcgi-program:fcgi]
command = sleep 1000
process_name = %(program_name)s_%(process_num)d
socket = unix://{short}/fcgi.sock
"""


def test_what_is_not_scaled(make_cluster: ClusterFactory) -> None:
    # So few that a thousand processes are too many: supervisord's own default minimum.
    cluster = make_cluster(wrapper=("prlimit", "--nofile=1024:1024"))
    cluster.extra = EXTRA.replace("{short}", str(cluster.short))
    cluster.start()
    assert refused(cluster, "nobody", "3") == "no such group"
    assert refused(cluster, "one", "3") == "no such group"
    assert refused(cluster, "sio", "2").startswith("an event listener cannot be scaled")
    assert refused(cluster, "fcgi", "2").startswith("a FastCGI program cannot be scaled")
    assert refused(cluster, "pair", "3").startswith("[group:pair] combines programs")
    assert refused(cluster, "plain", "2") == (
        "[program:plain] can have 1 process only; for more, write process_name = "
        "%(program_name)s_%(process_num)02d there, and run supervisorctl update"
    )
    for numprocs in ("0", "-2"):
        assert refused(cluster, "workers", numprocs).startswith("a group keeps at least 1 process")
    assert refused(cluster, "workers", "1001") == "1001 processes are too many: at most 1000"
    assert refused(cluster, "workers", "two").startswith("two is not a number of processes")
    assert refused(cluster, "sleepers", "900").startswith("supervisord may open 1024 files and ")

    # Numbers, not names, have an order; and any program can be scaled.
    done = cluster.ctl("sio", "scale", "sleepers", "11")
    assert done_in(done.stdout)[:-1] == [f"sleepers:sleepers_{n}: added" for n in (9, 10)]
    done = cluster.ctl("sio", "scale", "sleepers", "8")
    assert done_in(done.stdout)[:-1] == [f"sleepers:sleepers_{n}: removed" for n in (10, 9, 8)]

    text = cluster.conf.read_text()
    cluster.conf.write_text(text.replace("stopwaitsecs = 15", "stopwaitsecs = 16"))
    assert refused(cluster, "workers", "3").startswith("[program:workers] has another stopwaitsecs")
    cluster.conf.write_text(text.replace("numprocs = 2", "numprocs = many"))
    assert refused(cluster, "workers", "3").startswith("the configuration file cannot be used: ")
    cluster.conf.write_text(text)

    assert cluster.ctl("sio", "scale", "workers").returncode != 0
    with pytest.raises(Exception, match="not the next to leave"):
        cluster.rpc.sio.removeProcess(name(1))
    assert supervisor_status(cluster) == [name(0), name(1)]


def test_an_interrupted_scale_is_finished_or_undone(cluster: Cluster) -> None:
    scale(cluster, "3")
    answer = cluster.rpc.sio.scaleGroup("workers", 1)
    assert answer["surplus"] == [name(2), name(1)]
    for worker in answer["surplus"]:
        cluster.rpc.sio.drainWorker(worker)
    with pytest.raises(Exception, match="is still running"):
        cluster.rpc.sio.removeProcess(name(2))
    cluster.wait_ready(1)
    assert scale(cluster, "3") == ["workers: 3 processes already"]
    cluster.rpc.sio.scaleGroup("workers", "-2")
    assert len(scale(cluster, "1")) == 3


def test_automatic_logs(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster()
    cluster.extra = """
[program:talkers]
command = sh -c 'echo I am %(process_num)d; exec sleep 1000'
process_name = %(program_name)s_%(process_num)d
numprocs = 1
"""
    cluster.start()
    assert cluster.ctl("sio", "scale", "talkers", "3").returncode == 0

    def said() -> bool:
        return "I am 2" in cluster.ctl("tail", "talkers:talkers_2").stdout

    wait_until(said, 20, "the log of an added process")
    assert len(list(cluster.short.glob("talkers_2-std*---supervisor-*.log"))) == 2
