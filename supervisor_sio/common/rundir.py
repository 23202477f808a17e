"""The run directory: the sockets by which the processes of one cluster find each other.

supervisord creates it, holds its lock, and binds every socket in it, so that the paths stay when a
router restarts:

* ``supervisord.sock``: the router asks supervisord for the listening sockets;
* ``router.sock``: workers register at the router;
* ``xsub.sock``, ``xpub.sock``: publishers and subscribers of the relay.

The directory's owner and mode alone decide which users may run workers or emit.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import shutil
import socket
import stat
import tempfile
import time
from typing import IO, Any, NamedTuple, Optional

from .clusters import section
from .limits import FORGOTTEN_RUN_DIRS

#: Prefix of the names of run directories without the option ``run_dir``.
_PREFIX = "supervisor-sio-"

#: What to do instead of naming a directory that others use, such as /tmp.
ADVICE = (
    "name a directory that only this cluster uses, for example /run/myapp-sio "
    "(supervisord creates it)"
)

ENVIRONMENT_VARIABLE = "SUPERVISOR_SIO_RUN_DIR"

#: sockaddr_un.sun_path holds 108 bytes, one of them the closing NUL (unix(7)).
_LONGEST_SOCKET_PATH = 107


class RunDirError(OSError):
    """The run directory cannot be used; the text says why."""


class ClusterInfo(NamedTuple):
    """The settings that supervisord writes for all processes that publish on the relay."""

    channel: str = "socketio"
    buffer_messages: int = 65536
    buffer_maxbytes: int = 64 * 1024 * 1024
    message_maxbytes: int = 16 * 1024 * 1024
    #: Whether the relay is connected to other hosts.
    bridged: bool = False


class RunDir:
    """The paths in a run directory; nothing is opened."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.supervisord = os.path.join(path, "supervisord.sock")
        self.router = os.path.join(path, "router.sock")
        self.xsub = os.path.join(path, "xsub.sock")
        self.xpub = os.path.join(path, "xpub.sock")
        self._cluster = os.path.join(path, "cluster.json")

    @property
    def made(self) -> tuple[str, ...]:
        """All files that supervisord creates here, except its lock."""
        return self.supervisord, self.router, self.xsub, self.xpub, self._cluster

    @classmethod
    def from_environment(cls) -> Optional[RunDir]:
        """The run directory of the supervisord that started this process, if any."""
        path = os.environ.get(ENVIRONMENT_VARIABLE)
        return cls(path) if path else None

    def read_cluster(self) -> ClusterInfo:
        """Read the settings that supervisord has written.

        :raises RunDirError: when this is not the run directory of a cluster.
        """
        try:
            with open(self._cluster, encoding="utf-8") as file:
                written = json.load(file)
            # A supervisord of a newer version may say more, one of an older less.
            more = {name: written[name] for name in ClusterInfo._fields[1:] if name in written}
            return ClusterInfo(written["channel"], **more)
        except PermissionError:
            raise RunDirError(
                f"{self.path}: permission denied; let this user in with chmod and chown "
                f"of {section()}"
            ) from None
        except (OSError, ValueError, KeyError, TypeError):
            raise RunDirError(
                f"{self.path} is not the run directory of a running supervisord"
            ) from None


class OwnedRunDir(RunDir):
    """The run directory as supervisord creates, locks and removes it.

    A user who could write to it earlier may have left links there for root to follow. So no other
    user may enter it before :meth:`admit`, and files in it are opened relative to its descriptor,
    never through a link.

    :param owner: the uid of the option ``chown``, or -1.
    :ivar found_left: when this process found what a killed supervisord had left, in seconds of the
        host's monotonic clock; ``None`` if there was nothing.
    :raises RunDirError: when it cannot be created, its path is too long for a socket, or it belongs
        to another user or another running supervisord.
    """

    def __init__(self, path: Optional[str], owner: int = -1) -> None:
        self._temporary = path is None
        self._written: Optional[ClusterInfo] = None
        self.found_left: Optional[float] = None
        try:
            if path is None:
                remove_forgotten(owner)
                self.found_left = _forgotten_removed
                path = tempfile.mkdtemp(prefix=_PREFIX)
            super().__init__(path)
            if len(os.fsencode(self.supervisord)) > _LONGEST_SOCKET_PATH:
                raise RunDirError(f"{path} is too long: a Unix socket's path has 107 bytes at most")
            os.makedirs(path, mode=0o700, exist_ok=True)
            self._directory = self._open_directory(owner)
            try:
                self._lock = self._take_lock()
                if any(map(os.path.lexists, self.made)):
                    self.found_left = time.monotonic()
                try:
                    # Only with the lock: if another supervisord has it, its workers need access.
                    os.fchown(self._directory, os.geteuid(), -1)
                    os.fchmod(self._directory, 0o700)
                except OSError:
                    self._lock.close()
                    raise
            except OSError:
                os.close(self._directory)
                raise
        except RunDirError:
            raise
        except OSError as error:
            raise RunDirError(f"{path}: {error.strerror}") from None

    def _open_directory(self, owner: int) -> int:
        if os.path.islink(self.path):
            raise RunDirError(f"{self.path} is a symbolic link; name the directory itself")
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        status = os.fstat(directory)
        found = status.st_uid
        # After a crash it still belongs to the user of `chown`. A directory of any other user is
        # a mistake or a trap, also for root, who could take it.
        if found not in (os.geteuid(), owner):
            os.close(directory)
            raise RunDirError(f"{self.path} belongs to {user_name(found)}; {ADVICE}")
        if is_for_all(status.st_mode):
            os.close(directory)
            raise RunDirError(f"{self.path} is for the files of all users; {ADVICE}")
        return directory

    def _take_lock(self) -> IO[Any]:
        path = os.path.join(self.path, "lock")
        try:
            descriptor = os.open(
                "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=self._directory
            )
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise RunDirError(f"{path} is a symbolic link; remove it") from None
        lock = open(descriptor, "r+", encoding="ascii", errors="replace")  # noqa: SIM115
        status = os.fstat(descriptor)
        # With a second link, note_pid() would empty some other file.
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            lock.close()
            raise RunDirError(f"{path} is not a lock file of supervisord; remove it")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise RunDirError(
                f"{self.path} belongs to another running supervisord (pid {holder}); "
                "give each its own run_dir"
            ) from None
        return lock

    def write_cluster(self, cluster: ClusterInfo) -> None:
        """Write the settings for the other processes, atomically."""
        name = os.path.basename(self._cluster)
        temporary = name + ".new"
        try:
            os.unlink(temporary, dir_fd=self._directory)
        except FileNotFoundError:
            pass
        descriptor = os.open(
            temporary,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW,
            0o600,
            dir_fd=self._directory,
        )
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(cluster._asdict(), file)
            os.fchmod(descriptor, 0o644)
        os.rename(temporary, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._written = cluster

    def keep(self) -> None:
        """Touch the files, so that they are not removed as unused; to be called now and then.

        Services such as systemd-tmpfiles remove files from /tmp that were not used for days, and a
        worker that starts later still reads ``cluster.json``. Errors are ignored: the next call
        tries again.
        """
        if self._lock.closed:
            return
        with contextlib.suppress(OSError):
            if self._written is not None and not os.path.lexists(self._cluster):
                self.write_cluster(self._written)
        for path in (*self.made, os.path.join(self.path, "lock")):
            with contextlib.suppress(OSError):
                os.utime(os.path.basename(path), dir_fd=self._directory, follow_symlinks=False)

    def admit(self, chmod: int, chown: tuple[int, int]) -> None:
        """Set owner and mode, so that other users can enter.

        :raises OSError: when supervisord may not change the owner.
        """
        os.fchown(self._directory, *chown)
        os.fchmod(self._directory, chmod)

    def note_pid(self) -> None:
        """Write our pid to the lock file; again after supervisord has become a daemon."""
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    def bind(self, path: str, kind: int) -> socket.socket:
        """Make a listening Unix socket in the directory, in place of one that a crash left.

        The mode of the socket admits all users: the directory decides who can reach it.
        """
        try:
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
        except FileNotFoundError:
            pass
        sock = socket.socket(socket.AF_UNIX, kind)
        try:
            sock.bind(path)
            self._open_to_all(path)
            sock.listen(1024)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            raise RunDirError(f"{path}: {error.strerror}") from None
        return sock

    def _open_to_all(self, path: str) -> None:
        # chmod() follows links, and an O_PATH descriptor takes no fchmod().
        name = os.path.basename(path)
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self._directory)
        try:
            os.chmod(f"/proc/self/fd/{descriptor}", 0o777)
        finally:
            os.close(descriptor)

    def close(self, as_killed: bool = False) -> None:
        """Remove the files that supervisord created, and release the lock.

        :param as_killed: leave the files, so that the next start finds them, as after a crash.
        """
        if self._lock.closed:
            return
        if as_killed:
            self.note_pid()  # without a pid the directory counts as that of a start under way
        elif self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            for path in self.made:
                try:
                    os.unlink(os.path.basename(path), dir_fd=self._directory)
                except OSError:
                    pass
        self._lock.close()
        os.close(self._directory)


#: When this process last removed one, of any of its clusters: the first removes those of all.
_forgotten_removed: Optional[float] = None


def remove_forgotten(owner: int) -> None:
    """Remove the temporary run directories of supervisords that were killed.

    A directory is removed only if it belongs to this user or to ``owner`` and its supervisord is
    dead, so that this process can lock its lock file. Links are not followed. Errors are ignored:
    the next start tries again.
    """
    global _forgotten_removed
    parent = tempfile.gettempdir()
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(parent) if name.startswith(_PREFIX)]
        for name in names[:FORGOTTEN_RUN_DIRS]:
            with contextlib.suppress(OSError, ValueError):
                if _remove_if_forgotten(os.path.join(parent, name), owner):
                    _forgotten_removed = time.monotonic()


def _remove_if_forgotten(path: str, owner: int) -> bool:
    with contextlib.ExitStack() as stack:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        stack.callback(os.close, directory)
        if os.fstat(directory).st_uid not in (os.geteuid(), owner):
            return False
        lock = os.open("lock", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        stack.callback(os.close, lock)
        status = os.fstat(lock)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A supervisord that is starting may not have locked its file yet; the file has no pid
        # then, and int() raises ValueError.
        int(os.read(lock, 32))
        made = [os.path.basename(file) for file in RunDir(path).made]
        for name in (*made, f"{made[-1]}.new", "lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
        os.rmdir(path)  # fails if it has other files
        return True


def is_for_all(mode: int) -> bool:
    """Whether a directory of this mode is for the files of all users, as /tmp is.

    supervisord must not use it: as root it would lock the other users out.
    """
    return bool(mode & stat.S_ISVTX and mode & stat.S_IWOTH)


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
