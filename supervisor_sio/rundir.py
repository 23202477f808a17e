"""The run directory: where the parts of one cluster find each other.

supervisord makes it, holds its lock, and binds every socket in it, so that a
router can come and go without a path ever vanishing:

* ``supervisord.sock``: the router asks supervisord for the listening sockets;
* ``router.sock``: workers announce themselves to the router;
* ``xsub.sock``, ``xpub.sock``: publishers and subscribers of the relay.

Who may be a worker or emit is decided by the directory's owner and mode alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import stat
import tempfile
from typing import IO, Any, NamedTuple, Optional

ENVIRONMENT_VARIABLE = "SUPERVISOR_SIO_RUN_DIR"

#: sockaddr_un.sun_path holds 108 bytes, one of them the closing NUL (unix(7)).
_LONGEST_SOCKET_PATH = 107


class RunDirError(OSError):
    """The run directory cannot be used; the text is for a person."""


class ClusterInfo(NamedTuple):
    """What supervisord tells everybody who publishes on the relay."""

    channel: str = "socketio"
    buffer_messages: int = 65536
    buffer_maxbytes: int = 64 * 1024 * 1024
    message_maxbytes: int = 16 * 1024 * 1024
    #: Whether there are other hosts behind the relay.
    bridged: bool = False


class RunDir:
    """Paths in a run directory; reading them needs no more than its name."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.supervisord = os.path.join(path, "supervisord.sock")
        self.router = os.path.join(path, "router.sock")
        self.xsub = os.path.join(path, "xsub.sock")
        self.xpub = os.path.join(path, "xpub.sock")
        self._cluster = os.path.join(path, "cluster.json")

    @classmethod
    def from_environment(cls) -> Optional[RunDir]:
        """The run directory of the supervisord that started this process, if any."""
        path = os.environ.get(ENVIRONMENT_VARIABLE)
        return cls(path) if path else None

    def read_cluster(self) -> ClusterInfo:
        """The cluster, as ``[rpcinterface:sio]`` has it.

        :raises RunDirError: when this is not the run directory of a cluster.
        """
        try:
            with open(self._cluster, encoding="utf-8") as file:
                return ClusterInfo(**json.load(file))
        except PermissionError:
            raise RunDirError(
                f"{self.path}: permission denied; let this user in with chmod and chown "
                "of [rpcinterface:sio]"
            ) from None
        except (OSError, ValueError, KeyError, TypeError):
            raise RunDirError(
                f"{self.path} is not the run directory of a running supervisord"
            ) from None

    def write_cluster(self, cluster: ClusterInfo) -> None:
        """Written by supervisord, whole or not at all."""
        temporary = self._cluster + ".new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(cluster._asdict(), file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, self._cluster)


class OwnedRunDir(RunDir):
    """The run directory in supervisord's hands: made, locked and cleaned up.

    :raises RunDirError: when it cannot be made, is too long for a socket's
        path, or belongs to another running supervisord.
    """

    def __init__(self, path: Optional[str]) -> None:
        self._temporary = path is None
        try:
            if path is None:
                path = tempfile.mkdtemp(prefix="supervisor-sio-")
            super().__init__(path)
            if len(os.fsencode(self.supervisord)) > _LONGEST_SOCKET_PATH:
                raise RunDirError(f"{path} is too long: the path of a Unix socket has 107 bytes")
            os.makedirs(path, mode=0o700, exist_ok=True)
            self._lock = self._take_lock()
        except RunDirError:
            raise
        except OSError as error:
            raise RunDirError(f"{path}: {error.strerror}") from None

    def _take_lock(self) -> IO[Any]:
        lock = open(os.path.join(self.path, "lock"), "a+", encoding="ascii")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise RunDirError(
                f"{self.path} belongs to another running supervisord (pid {holder}); "
                "give each its own run_dir"
            ) from None
        return lock

    def admit(self, chmod: int, chown: tuple[int, int]) -> None:
        """Set who may come in.

        :raises OSError: when supervisord may not give the directory away.
        """
        os.chown(self.path, *chown)
        os.chmod(self.path, chmod)

    def note_pid(self) -> None:
        """Name the holder of the lock; again after supervisord went to the background."""
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    def bind(self, path: str, kind: int) -> socket.socket:
        """A listening Unix socket in the directory; what a crash left there goes first.

        Its own mode lets everybody in: the directory is the gate.
        """
        try:
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
        except FileNotFoundError:
            pass
        sock = socket.socket(socket.AF_UNIX, kind)
        try:
            sock.bind(path)
            os.chmod(path, 0o777)
            sock.listen(1024)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            raise RunDirError(f"{path}: {error.strerror}") from None
        return sock

    def close(self) -> None:
        """Remove what was made here, and let go of the lock."""
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            for path in (self.supervisord, self.router, self.xsub, self.xpub, self._cluster):
                try:
                    os.unlink(path)
                except OSError:
                    pass
        self._lock.close()
