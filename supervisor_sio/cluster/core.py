"""What the two managers share: everything but waiting."""

from __future__ import annotations

import itertools
import math
import os
import random
import uuid
import weakref
from typing import Any, Callable, ClassVar, Iterator, Mapping, Optional

from ..common import identity
from ..common.clusters import why_none
from ..common.limits import ATTACHMENTS, CONNECT_SECONDS
from ..common.rundir import ENVIRONMENT_VARIABLE, RunDir
from ..relay import native
from ..relay.message import RelayMessage
from . import acks, admin, relaying, sessions
from .clients import Clients
from .coding import Coding
from .early import Early
from .emitting import Emitting
from .keeping import RECOVERY_MAXBYTES, RECOVERY_MESSAGES, check_options
from .operations import Operations
from .outside import Outside
from .packets import CheckedJson
from .recovery import Recovery
from .relaying import Relaying
from .rooms import IndexedManager
from .run_once import RunOnce

_URL_SCHEME = "zmq+ipc://"

_managers: weakref.WeakSet[Core] = weakref.WeakSet()


class Core(
    Operations, RunOnce, Emitting, Clients, Recovery, Outside, Relaying, Coding, IndexedManager
):
    """A manager whose operations are coroutines, except ``emit``.

    Subclasses define how it waits, and in which thread or loop it may be called.
    """

    name = "zmq"

    def __init__(
        self,
        url: Optional[str] = None,
        channel: Optional[str] = None,
        write_only: bool = False,
        logger: Any = None,
        json: Any = None,
        max_attachments: int = ATTACHMENTS,
        takeover: bool = False,
        recovery: float = 0,
        recovery_messages: int = RECOVERY_MESSAGES,
        recovery_maxbytes: int = RECOVERY_MAXBYTES,
        connect_timeout: float = CONNECT_SECONDS,
    ) -> None:
        if not isinstance(takeover, bool):
            raise ValueError(f"takeover {takeover!r:.80} is not True or False")
        if takeover and write_only:
            raise ValueError("takeover=True with write_only=True: such a manager has no clients")
        if not isinstance(connect_timeout, (int, float)) or not 0 < connect_timeout < math.inf:
            raise ValueError(f"connect_timeout {connect_timeout!r:.80} is not a number above 0")
        check_options(recovery, recovery_messages, recovery_maxbytes, write_only)
        run_dir = RunDir.from_environment()
        if url is not None:
            if not url.startswith(_URL_SCHEME + "/"):
                raise ValueError(
                    f"url {url!r} is not supported: leave url out in a worker, or write "
                    f"{_URL_SCHEME}/run/myapp-sio (the run_dir)"
                )
            run_dir = RunDir(url[len(_URL_SCHEME) :])
        if run_dir is None and write_only:
            raise ValueError(
                why_none()
                or f"{type(self).__name__}(write_only=True) outside supervisord: set "
                f"{ENVIRONMENT_VARIABLE} or pass url='{_URL_SCHEME}' and the run_dir "
                "of [rpcinterface:sio]"
            )
        IndexedManager.__init__(self)
        Operations.__init__(self)
        RunOnce.__init__(self)
        Relaying.__init__(self, run_dir)
        Recovery.__init__(self)
        Outside.__init__(self)
        self.channel = channel
        self.write_only = write_only
        self.takeover = takeover
        self.recovery = recovery
        self.recovery_messages = recovery_messages
        self.recovery_maxbytes = recovery_maxbytes
        self.logger = logger
        self.host_id = uuid.uuid4().hex if write_only else identity.tag()
        self._write_only_json = None if json is None else CheckedJson(json)
        self._max_attachments = max_attachments
        self.connect_timeout = connect_timeout
        #: By sid: what was emitted to clients whose connect handlers have not returned yet.
        self._early: dict[str, Early] = {}
        #: Sends to the clients of the server.
        self._outlet: Optional[sessions.Outlet] = None
        self._ack_ids = _new_ack_ids()
        self._callbacks = acks.Callbacks()
        self._awaited = acks.Clients()
        _managers.add(self)
        sessions.manager_made()

    def set_server(self, server: Any) -> None:
        super().set_server(server)
        sessions.attach(server, self._max_attachments, self._send_through)
        self._serves = not self.write_only and sessions.are_expected()
        admin.span_cluster(server, self)

    def figures(self) -> dict[str, int]:
        """Figures of the relay and of recovery."""
        return {
            **super().figures(),
            "recovered": self.recovered,
            "lost": self.lost,
            "kept_bytes": 0 if self.journal is None else self.journal.kept_bytes,
        }

    def _send_through(self, outlet: sessions.Outlet) -> None:
        self._outlet = outlet

    def _in_another_thread(self) -> bool:
        """Whether only one thread may serve the clients, and this is another one."""
        outlet = self._outlet
        if outlet is None or outlet.threads is None or outlet.concurrent:
            return False
        return not outlet.threads.here

    def _is_in_loop(self) -> bool:
        """Whether this thread runs the loop, or handlers run in no other threads."""
        threads = None if self._outlet is None else self._outlet.threads
        return threads is None or threads.here

    def _run_where_served(self, call: Callable[..., Any], *args: Any) -> None:
        """Call it in a thread that may serve the clients: at once, or queued."""
        outlet = self._outlet
        if self._in_another_thread() and outlet is not None and outlet.threads is not None:
            outlet.threads.run(0, call, *args)
        else:
            call(*args)

    def _forget_parent(self) -> None:
        """In the child of a fork: clients, relay and locks are the parent's."""
        self._joining = native.lock()  # another thread of the parent may hold the old one
        self._publisher = self._subscriber = None
        self._serves = False
        if self._outlet is not None:
            self._outlet.threads = None
        self._calls.clear()
        self.forget_asked()
        self._ack_ids = _new_ack_ids()
        self._callbacks, self._awaited = acks.Callbacks(), acks.Clients()
        self.forget_clients()
        self.forget_takeover()
        self.forget_kept()
        self.forget_moved()
        self._early.clear()

    #: The handler of each method of other processes' messages.
    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        **Operations.HANDLERS,
        **Emitting.HANDLERS,
        **Clients.HANDLERS,
        **Recovery.HANDLERS,
        **Outside.HANDLERS,
    }


def _new_ack_ids() -> Iterator[int]:
    """Ids for acknowledgements, unique in the cluster.

    A client echoes the id it was given, so unique ids need no translation on the way. They start at
    random within 52 of the 53 bits that are exact in JavaScript.
    """
    return itertools.count(random.getrandbits(52) + 1)


def _forget_parent() -> None:
    relaying.channels_in_use.clear()
    for manager in list(_managers):
        manager._forget_parent()


os.register_at_fork(after_in_child=_forget_parent)
