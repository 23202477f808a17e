from __future__ import annotations

import fcntl
import os
import pwd
import socket
import stat
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from supervisor import events, loggers
from supervisor.options import ServerOptions
from supervisor.supervisord import Supervisor

from supervisor_sio.common import rundir
from supervisor_sio.common.rundir import (
    ENVIRONMENT_VARIABLE,
    ClusterInfo,
    OwnedRunDir,
    RunDir,
    RunDirError,
    remove_forgotten,
)
from supervisor_sio.settings import SettingsError, parse_settings
from supervisor_sio.supervisord.cluster import Cluster

#: As long as the path of a Unix socket may be, in bytes.
LONGEST = 107

NOBODY = pwd.getpwnam("nobody").pw_uid
as_root = pytest.mark.skipif(os.getuid() != 0, reason="gives directories to other users")


@pytest.fixture
def owned(tmp_path: Path) -> Iterator[OwnedRunDir]:
    run_dir = OwnedRunDir(str(tmp_path / "run"))
    yield run_dir
    run_dir.close()


def padded(directory: Path, length: int) -> str:
    """A path in the directory whose longest socket path has this many bytes."""
    length -= len("/supervisord.sock")
    return str(directory / ("x" * (length - len(str(directory)) - 1)))


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of supervisord's user that others would like to see overwritten."""
    path = tmp_path / "victim"
    path.write_text("precious")
    path.chmod(0o600)
    return path


def assert_untouched(victim: Path) -> None:
    assert (victim.read_text(), mode(str(victim))) == ("precious", 0o600)


def test_it_is_made_for_its_owner_alone(owned: OwnedRunDir) -> None:
    assert mode(owned.path) == 0o700
    owned.admit(0o750, (-1, -1))
    assert mode(owned.path) == 0o750


def test_parents_are_made_and_an_existing_directory_is_taken(tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "b")
    OwnedRunDir(path).close()
    OwnedRunDir(path).close()
    assert os.path.isdir(path)


def test_a_private_one_goes_with_its_owner(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    no_leak: Callable[[], AbstractContextManager[None]],
) -> None:
    # A short path: the sockets' must have room for more.
    tmp_path = tmp_path_factory.mktemp("run")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with no_leak():
        first, second = OwnedRunDir(None), OwnedRunDir(None)
        assert first.path != second.path
        assert mode(first.path) == 0o700
        first.bind(first.router, socket.SOCK_SEQPACKET).close()
        first.close()
        second.close()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_names_its_holder(owned: OwnedRunDir) -> None:
    with pytest.raises(RunDirError) as caught:
        OwnedRunDir(owned.path)
    assert str(caught.value) == (
        f"{owned.path} belongs to another running supervisord (pid unknown); "
        "give each its own run_dir"
    )
    for _ in range(2):
        owned.note_pid()
        with pytest.raises(RunDirError, match=rf"\(pid {os.getpid()}\)"):
            OwnedRunDir(owned.path)


def test_the_lock_is_free_after_close(tmp_path: Path) -> None:
    first = OwnedRunDir(str(tmp_path))
    first.note_pid()
    first.close()
    second = OwnedRunDir(str(tmp_path))
    with pytest.raises(RunDirError, match="another running supervisord"):
        OwnedRunDir(str(tmp_path))
    second.close()


def test_the_longest_path(tmp_path: Path) -> None:
    run_dir = OwnedRunDir(padded(tmp_path, LONGEST))
    assert len(run_dir.supervisord) == LONGEST
    for path in (run_dir.supervisord, run_dir.router, run_dir.xsub, run_dir.xpub):
        run_dir.bind(path, socket.SOCK_STREAM).close()
    run_dir.close()


def test_a_path_too_long(tmp_path: Path) -> None:
    path = padded(tmp_path, LONGEST + 1)
    with pytest.raises(RunDirError) as caught:
        OwnedRunDir(path)
    assert str(caught.value) == f"{path} is too long: a Unix socket's path has 107 bytes at most"
    assert not os.path.exists(path)


def test_the_length_is_counted_in_bytes(tmp_path: Path) -> None:
    path = padded(tmp_path, LONGEST)[:-1] + "ü"
    with pytest.raises(RunDirError, match="is too long"):
        OwnedRunDir(path)


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunDirError, match="/file: File exists$"):
        OwnedRunDir(str(tmp_path / "file"))
    with pytest.raises(RunDirError, match="/file/run: Not a directory$"):
        OwnedRunDir(str(tmp_path / "file" / "run"))


def test_a_socket_in_it_lets_everybody_in(owned: OwnedRunDir) -> None:
    with owned.bind(owned.router, socket.SOCK_SEQPACKET) as listener:
        assert mode(owned.router) == 0o777
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(owned.router)
            listener.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_what_a_crash_left_is_replaced(owned: OwnedRunDir) -> None:
    owned.bind(owned.xpub, socket.SOCK_STREAM).close()
    assert os.path.exists(owned.xpub)
    with owned.bind(owned.xpub, socket.SOCK_STREAM):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(owned.xpub)


def test_what_is_no_socket_stays(
    owned: OwnedRunDir, no_leak: Callable[[], AbstractContextManager[None]]
) -> None:
    Path(owned.router).write_text("precious")
    with no_leak(), pytest.raises(RunDirError, match="router.sock: Address already in use"):
        owned.bind(owned.router, socket.SOCK_SEQPACKET)
    assert Path(owned.router).read_text() == "precious"


def test_close_removes_its_own_things_only(tmp_path: Path) -> None:
    run_dir = OwnedRunDir(str(tmp_path))
    run_dir.write_cluster(ClusterInfo())
    run_dir.bind(run_dir.router, socket.SOCK_SEQPACKET).close()
    run_dir.bind(run_dir.supervisord, socket.SOCK_SEQPACKET).close()
    (tmp_path / "notes").touch()
    run_dir.close()
    assert {path.name for path in tmp_path.iterdir()} <= {"lock", "notes"}
    assert (tmp_path / "notes").exists()


# --- what /tmp is swept of ----------------------------------------------------------


def test_it_is_kept_from_those_who_remove_what_is_old(owned: OwnedRunDir) -> None:
    owned.write_cluster(ClusterInfo("my app"))
    listener = owned.bind(owned.router, socket.SOCK_SEQPACKET)
    paths = [os.path.join(owned.path, name) for name in os.listdir(owned.path)]
    assert len(paths) == 3
    for path in paths:
        os.utime(path, (0, 0))
    owned.keep()
    for path in paths:
        assert os.stat(path).st_mtime > 0 < os.stat(path).st_atime, path
    listener.close()


def test_the_cluster_is_written_again_if_it_is_gone(owned: OwnedRunDir) -> None:
    owned.keep()
    assert os.listdir(owned.path) == ["lock"]  # there was none yet
    owned.write_cluster(ClusterInfo("my app"))
    os.unlink(os.path.join(owned.path, "cluster.json"))
    owned.keep()
    assert owned.read_cluster() == ClusterInfo("my app")
    assert mode(os.path.join(owned.path, "cluster.json")) == 0o644


def test_it_is_not_kept_for_ever(owned: OwnedRunDir) -> None:
    owned.write_cluster(ClusterInfo())
    owned.close()
    owned.keep()
    assert os.listdir(owned.path) == ["lock"]


def test_keeping_it_harms_nobody(owned: OwnedRunDir, victim: Path) -> None:
    owned.write_cluster(ClusterInfo())
    os.utime(victim, (0, 0))
    os.unlink(os.path.join(owned.path, "cluster.json"))
    os.symlink(victim, os.path.join(owned.path, "cluster.json"))
    owned.keep()
    assert victim.stat().st_mtime == 0
    os.unlink(os.path.join(owned.path, "cluster.json"))
    os.mkdir(os.path.join(owned.path, "cluster.json.new"))
    owned.keep()
    assert_untouched(victim)


def test_a_supervisord_of_another_version(owned: OwnedRunDir) -> None:
    """It may write more settings, or fewer."""
    path = os.path.join(owned.path, "cluster.json")
    for text, cluster in (
        ('{"channel": "my app", "more": 1}', ClusterInfo("my app")),
        ('{"channel": "my app", "buffer_messages": 7}', ClusterInfo("my app", 7)),
    ):
        with open(path, "w") as file:
            file.write(text)
        assert owned.read_cluster() == cluster


@pytest.fixture
def supervisord(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One that runs nothing, and may have a cluster."""
    monkeypatch.setattr("supervisor.events.callbacks", [])
    for name in ("PATH", ENVIRONMENT_VARIABLE):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    options = ServerOptions()
    options.logger = loggers.getLogger()
    return Supervisor(options)


def test_supervisord_keeps_it_every_hour(
    tmp_path_factory: pytest.TempPathFactory, supervisord: Any
) -> None:
    run = tmp_path_factory.mktemp("run")
    Cluster(supervisord, parse_settings({"listen": f"unix:{run}.s", "run_dir": str(run)}))
    supervisord.tick(now=3600.0)
    (run / "cluster.json").unlink()
    supervisord.tick(now=7199.0)
    assert not (run / "cluster.json").exists()
    supervisord.tick(now=7200.0)
    assert RunDir(str(run)).read_cluster() == ClusterInfo()
    events.notify(events.SupervisorStoppingEvent())
    supervisord.tick(now=10800.0)
    assert os.listdir(run) == ["lock"]


# --- somebody else has been there ---------------------------------------------------


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_no_link_is_followed_to_the_lock(
    tmp_path: Path,
    victim: Path,
    link: Callable[[Path, Path], None],
    no_leak: Callable[[], AbstractContextManager[None]],
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    link(victim, run / "lock")
    with no_leak(), pytest.raises(RunDirError, match=f"^{run}/lock is .*; remove it$"):
        OwnedRunDir(str(run))
    assert_untouched(victim)


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", ["cluster.json", "cluster.json.new"])
def test_no_link_is_followed_to_the_cluster(
    owned: OwnedRunDir, victim: Path, link: Callable[[Path, Path], None], name: str
) -> None:
    there = Path(owned.path) / name
    link(victim, there)
    owned.write_cluster(ClusterInfo())
    assert_untouched(victim)
    assert owned.read_cluster() == ClusterInfo()
    assert stat.S_IMODE(os.lstat(Path(owned.path) / "cluster.json").st_mode) == 0o644


def test_no_link_is_followed_when_a_socket_is_opened_to_all(
    owned: OwnedRunDir, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Swapped(socket.socket):
        def bind(self, address: str) -> None:  # type: ignore[override]
            os.symlink(victim, address)

    monkeypatch.setattr("supervisor_sio.common.rundir.socket.socket", Swapped)
    with pytest.raises(RunDirError, match=r"router\.sock: "):
        owned.bind(owned.router, socket.SOCK_SEQPACKET)
    assert_untouched(victim)


def test_a_link_to_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path)
    with pytest.raises(RunDirError, match="/run is a symbolic link; name the directory itself$"):
        OwnedRunDir(str(tmp_path / "run"))
    assert not (tmp_path / "lock").exists()


def test_nobody_else_writes_there_before_they_are_admitted(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    run_dir = OwnedRunDir(str(tmp_path))
    assert mode(run_dir.path) == 0o700
    run_dir.close()


def test_a_second_supervisord_leaves_it_open(owned: OwnedRunDir) -> None:
    owned.admit(0o711, (-1, -1))
    with pytest.raises(RunDirError, match="another running supervisord"):
        OwnedRunDir(owned.path)
    assert mode(owned.path) == 0o711


@as_root
def test_the_directory_of_somebody_else_is_refused(
    tmp_path: Path, no_leak: Callable[[], AbstractContextManager[None]]
) -> None:
    os.chown(tmp_path, NOBODY, -1)
    with no_leak(), pytest.raises(RunDirError) as caught:
        OwnedRunDir(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path} belongs to nobody; name a directory that only this cluster uses, "
        "for example /run/myapp-sio (supervisord creates it)"
    )
    assert not (tmp_path / "lock").exists()


def test_a_directory_that_is_for_all_users_stays_theirs(
    tmp_path: Path, no_leak: Callable[[], AbstractContextManager[None]]
) -> None:
    """supervisord as root would close /tmp to everybody else."""
    tmp_path.chmod(0o1777)
    with no_leak(), pytest.raises(RunDirError, match="is for the files of all users; name a"):
        OwnedRunDir(str(tmp_path))
    assert (mode(str(tmp_path)), list(tmp_path.iterdir())) == (0o1777, [])


@as_root
def test_a_directory_that_was_given_away_is_taken_back(tmp_path: Path) -> None:
    path = str(tmp_path / "run")
    OwnedRunDir(path).admit(0o700, (NOBODY, -1))  # and no close(), as in a crash
    run_dir = OwnedRunDir(path, NOBODY)
    assert os.stat(path).st_uid == 0
    run_dir.admit(0o700, (NOBODY, -1))
    assert os.stat(path).st_uid == NOBODY
    run_dir.close()


@as_root
def test_supervisord_takes_back_what_chown_gave_away(
    tmp_path_factory: pytest.TempPathFactory, supervisord: Any
) -> None:
    run = tmp_path_factory.mktemp("run")
    os.chown(run, NOBODY, -1)
    settings = {"listen": f"unix:{run}.s", "run_dir": str(run)}
    with pytest.raises(SettingsError, match=r"run_dir: .* belongs to nobody; name a directory"):
        Cluster(supervisord, parse_settings(settings))
    Cluster(supervisord, parse_settings({**settings, "chown": "nobody"}))
    assert run.stat().st_uid == NOBODY
    events.notify(events.SupervisorStoppingEvent())


def test_a_second_close_closes_nothing(tmp_path: Path) -> None:
    run_dir = OwnedRunDir(str(tmp_path))
    run_dir.close()
    with open(os.devnull) as other:  # it may have got a number that close() knew
        run_dir.close()
        os.fstat(other.fileno())


@pytest.mark.parametrize(
    "cluster",
    [ClusterInfo(), ClusterInfo("my app", 1, 2, 3, bridged=True), ClusterInfo("Plausch-ü")],
)
def test_the_cluster_is_left_for_others_to_read(owned: OwnedRunDir, cluster: ClusterInfo) -> None:
    owned.write_cluster(ClusterInfo("before"))
    owned.write_cluster(cluster)
    assert RunDir(owned.path).read_cluster() == cluster
    assert not [name for name in os.listdir(owned.path) if name.endswith(".new")]


@pytest.mark.parametrize("content", [None, "", "{", "[1]", '{"x":1}', "null", "\udcff"])
def test_no_run_dir_of_a_cluster(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "cluster.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(RunDirError) as caught:
        RunDir(str(tmp_path)).read_cluster()
    assert str(caught.value).startswith(
        f"{tmp_path} is not the run directory of a running supervisord"
    )


def test_where_supervisord_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    assert RunDir.from_environment() is None
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "")
    assert RunDir.from_environment() is None
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "/run/app")
    run_dir = RunDir.from_environment()
    assert run_dir is not None
    assert (run_dir.path, run_dir.router) == ("/run/app", "/run/app/router.sock")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another /tmp, whose name is as short."""
    with tempfile.TemporaryDirectory(prefix="sio-") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


def leave(directory: Path, lock: str = "4194304\n") -> Path:
    """What a supervisord leaves that was killed."""
    run_dir = OwnedRunDir(str(directory))
    run_dir.write_cluster(ClusterInfo())
    run_dir.bind(run_dir.router, socket.SOCK_SEQPACKET).close()
    run_dir._lock.close()
    os.close(run_dir._directory)
    (directory / "lock").write_text(lock)
    return directory


def test_what_a_killed_supervisord_left_goes(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [leave(temporary / f"supervisor-sio-{number}") for number in range(3)]
    monkeypatch.setattr(rundir, "_forgotten_removed", None)
    before = time.monotonic()
    first, second = OwnedRunDir(None), OwnedRunDir(None)
    assert not any(path.exists() for path in left)
    for own in (first, second):  # of two clusters of a supervisord
        assert own.found_left is not None and own.found_left >= before
        own.close()


def test_a_supervisord_that_was_killed_is_noticed(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundir, "_forgotten_removed", None)
    run = temporary / "run"
    for path in (None, str(run)):
        own = OwnedRunDir(path)
        assert own.found_left is None
        own.close()
    assert OwnedRunDir(str(run)).found_left is None  # of one that has ended by itself
    leave(run)
    own = OwnedRunDir(str(run))
    assert own.found_left is not None and own.found_left <= time.monotonic()
    own.close()


@pytest.mark.parametrize("name", [None, "run"])
def test_a_start_that_fails_leaves_what_it_has_found(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    path = str(temporary / name) if name else None
    leave(temporary / (name or "supervisor-sio-killed"))
    for _ in range(2):  # before supervisord runs, and has noted its pid
        monkeypatch.setattr(rundir, "_forgotten_removed", None)
        own = OwnedRunDir(path)
        assert own.found_left is not None
        own.close(as_killed=True)
    monkeypatch.setattr(rundir, "_forgotten_removed", None)
    own = OwnedRunDir(path)
    assert own.found_left is not None
    own.close()
    assert [each.name for each in temporary.iterdir()] == ([name] if name else [])
    monkeypatch.setattr(rundir, "_forgotten_removed", None)
    own = OwnedRunDir(path)
    assert own.found_left is None
    own.close()


def test_what_is_not_forgotten_stays(temporary: Path, victim: Path) -> None:
    alive = leave(temporary / "supervisor-sio-alive")
    starting = leave(temporary / "supervisor-sio-starting", lock="")
    others = leave(temporary / "supervisor-sio-others")
    (others / "photo.jpg").write_text("precious")
    elsewhere = leave(temporary / "elsewhere")
    (temporary / "supervisor-sio-link").symlink_to(elsewhere)
    linked = leave(temporary / "supervisor-sio-linked")
    (linked / "lock").unlink()
    (linked / "lock").symlink_to(victim)
    (temporary / "supervisor-sio-file").write_text("5")
    (temporary / "supervisor-sio-empty").mkdir()
    pipe = temporary / "supervisor-sio-pipe"
    pipe.mkdir()
    os.mkfifo(pipe / "lock")
    with open(alive / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_forgotten(-1)
    for path in (alive, starting, elsewhere, linked):
        assert (path / "cluster.json").exists() and (path / "router.sock").exists(), path
    assert (others / "photo.jpg").exists()
    assert_untouched(victim)


@as_root
def test_what_belongs_to_somebody_else_stays(temporary: Path) -> None:
    left = leave(temporary / "supervisor-sio-nobodys")
    os.chown(left, NOBODY, -1)
    remove_forgotten(-1)
    assert left.exists()
    remove_forgotten(NOBODY)  # as chown has it
    assert not left.exists()
