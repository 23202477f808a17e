"""Questions to all workers: which clients are connected, and in which rooms."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, ClassVar, Mapping, Optional

from ..common import identity
from ..relay.message import RelayMessage
from .asking import TIMEOUT, Asking
from .gathering import Answers
from .lost import Times
from .rooms import Room, check_names
from .scope import Scope


@dataclass(frozen=True)
class RemoteSocket:
    """A client of any worker, as :meth:`ZmqManager.fetch_sockets` describes it."""

    sid: str
    namespace: str
    #: As :meth:`socketio.Server.rooms` has them: one of them is the sid.
    rooms: list[Any]
    #: Name of its worker, as supervisorctl shows it.
    worker: str
    #: ``polling`` or ``websocket``.
    transport: str
    #: The client's IP address.
    address: str
    #: What :meth:`ZmqManager.share_session_keys` lets others see of its session.
    data: dict[str, Any] = field(default_factory=dict)


class RoomSizes(Counter[Any]):
    """Numbers of clients by room, and whether all workers have answered, see :class:`Answers`."""

    timed_out: bool = False
    missing: int = 0


class Fetching(Asking):
    """The part of a manager that asks all workers for clients and rooms."""

    # From the manager and its other parts.
    _session: Callable[[str, str], dict[str, Any]]
    rooms: dict[str, dict[Any, Any]]
    get_rooms: Callable[[str, str], list[Any]]
    _times: Times
    _participants: Callable[..., list[tuple[str, str]]]

    #: Keys of a client's session that all workers may see.
    _shared_keys: tuple[str, ...] = ()

    async def fetch_sockets(
        self,
        room: Room = None,
        namespace: Optional[str] = None,
        except_room: Room = None,
        local: bool = False,
        timeout: float = TIMEOUT,
    ) -> Answers[RemoteSocket]:
        """Return the clients of all workers.

        :param timeout: in seconds.
        :raises RuntimeError: in a write-only manager.
        :raises RelayUnreachable: in a process that serves no clients, when no router answers.
        """
        check_names(room)
        check_names(except_room)
        namespace = namespace or "/"
        answers = await self._gather(
            "fetch_sockets",
            namespace,
            {"room": room, "except_room": except_room},
            local,
            timeout,
            own=lambda: self._local_sockets(namespace, room, except_room),
        )
        sockets: Answers[RemoteSocket] = Answers(
            RemoteSocket(**socket) for answer in answers for socket in answer
        )
        sockets.timed_out, sockets.missing = answers.timed_out, answers.missing
        return sockets

    def share_session_keys(self, *keys: str) -> None:
        """Let :meth:`fetch_sockets` show these keys of each client's session.

        Nothing of a session leaves its worker unless it is named here. Call it
        once where the server is made, in all workers alike.
        """
        self._shared_keys += keys

    async def fetch_rooms(
        self,
        namespace: Optional[str] = None,
        local: bool = False,
        timeout: float = TIMEOUT,
    ) -> RoomSizes:
        """Return the number of clients of each room, over all workers.

        The room that each client has for itself, named by its sid, is left out.

        :param timeout: in seconds.
        :raises RuntimeError: in a write-only manager.
        :raises RelayUnreachable: in a process that serves no clients, when no router answers.
        """
        namespace = namespace or "/"
        answers = await self._gather(
            "fetch_rooms",
            namespace,
            {},
            local,
            timeout,
            own=lambda: self._local_rooms(namespace),
        )
        sizes = RoomSizes()
        for answer in answers:
            for room, size in answer:
                sizes[room] += size
        sizes.timed_out, sizes.missing = answers.timed_out, answers.missing
        return sizes

    def _local_sockets(
        self,
        namespace: str,
        room: Room = None,
        except_room: Room = None,
        scope: Optional[Scope] = None,
    ) -> list[dict[str, Any]]:
        found = []
        with self._tables:
            selected = self._participants(namespace, room, except_room, scope=scope)
            if self._times:  # lost clients are not connected
                selected = [pair for pair in selected if pair[0] not in self._times]
        for sid, _ in selected:
            try:
                session = self._session(sid, namespace) if self._shared_keys else {}
                socket = RemoteSocket(
                    sid=sid,
                    namespace=namespace,
                    rooms=self.get_rooms(sid, namespace),
                    worker=identity.process_name(),
                    transport=self.server.transport(sid, namespace),
                    address=self.server.get_environ(sid, namespace).get("REMOTE_ADDR", ""),
                    data={key: session[key] for key in self._shared_keys if key in session},
                )
            except (KeyError, AttributeError):
                continue  # about to disconnect
            found.append(asdict(socket))
        return found

    def _local_rooms(self, namespace: str, scope: Optional[Scope] = None) -> list[list[Any]]:
        with self._tables:
            rooms = self.rooms.get(namespace, {})
            everybody = rooms.get(None, {})
            named = {r: m for r, m in rooms.items() if r not in everybody and r is not None}
            if scope is not None:
                named = {r: m for r, m in named.items() if any(sid in scope for sid in m)}
            return [
                [r, len(members if scope is None else scope.select(members.items()))]
                for r, members in named.items()
            ]

    def _on_fetch_sockets(self, message: RelayMessage) -> None:
        fields = message.fields
        selection = fields.get("room"), fields.get("except_room")
        sockets = self._local_sockets(fields["namespace"], *selection, scope=message.scope)
        self._reply(message, sockets)

    def _on_fetch_rooms(self, message: RelayMessage) -> None:
        self._reply(message, self._local_rooms(message.fields["namespace"], message.scope))

    REQUESTS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        "fetch_sockets": _on_fetch_sockets,
        "fetch_rooms": _on_fetch_rooms,
    }
