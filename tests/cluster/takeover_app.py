"""The application of the tests of takeover and recovery: it writes down what it is called for.

HAPPENED names the file: a line of JSON for each call, of all workers, in their order. With RECOVERY
clients may come back for so many seconds; there is takeover as well only if TAKEOVER says so.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import portable

RECOVERY = float(os.environ.get("RECOVERY", "0"))

sio, manager = portable.make(
    takeover=not RECOVERY or "TAKEOVER" in os.environ,
    recovery=RECOVERY,
    cors_allowed_origins="*",
    ping_interval=float(os.environ.get("PING_INTERVAL", "25")),
    ping_timeout=float(os.environ.get("PING_TIMEOUT", "20")),
)

NAME = os.environ.get("SUPERVISOR_PROCESS_NAME", "")

#: Numbers at most: clients may take none of them meanwhile.
MOST = 1000

_over: set[str] = set()

_file = os.open(os.environ["HAPPENED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def note(what: str, sid: str, **more: Any) -> None:
    line = {"what": what, "sid": sid, "pid": os.getpid(), "at": time.monotonic(), **more}
    os.write(_file, json.dumps(line).encode() + b"\n")


@manager.on_takeover
@manager.on_takeover(namespace="/room")
async def taken_over(sid: str, environ: dict[str, Any]) -> None:
    note("takeover", sid, query=environ["QUERY_STRING"])


if RECOVERY:

    @manager.on_recovery
    @manager.on_recovery(namespace="/room")
    async def recovered(sid: str, environ: dict[str, Any]) -> None:
        note("recovery", sid, query=environ["QUERY_STRING"])


class Events(portable.Namespace):
    """The same handlers in each namespace."""

    async def on_connect(self, sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        await self.save_session(sid, {"user": f"user {sid}", "visits": [1, None, {"ü": 0.5}]})
        note("connect", sid, auth=auth)

    async def on_disconnect(self, sid: str, reason: str) -> None:
        session = await self.get_session(sid)
        query = self.server.get_environ(sid, self.namespace)["QUERY_STRING"]
        note("disconnect", sid, reason=reason, user=session["user"], query=query)

    async def on_echo(self, sid: str, *args: Any) -> Any:
        return args

    async def on_about(self, sid: str) -> dict[str, Any]:
        """All that the application can ask about a client."""
        environ = self.server.get_environ(sid, self.namespace)
        return {
            "session": await self.get_session(sid),
            "rooms": sorted(self.rooms(sid)),
            "environ": {name: text for name, text in environ.items() if isinstance(text, str)},
        }

    async def on_whoami(self, sid: str) -> dict[str, Any]:
        return {"pid": os.getpid(), "name": NAME}

    async def on_remember(self, sid: str, key: str, value: Any) -> None:
        await self.save_session(sid, {**await self.get_session(sid), key: value})

    async def on_remember_nonsense(self, sid: str, key: str) -> None:
        """What is not JSON."""
        await self.save_session(sid, {**await self.get_session(sid), key: object()})

    async def on_join(self, sid: str, room: str) -> None:
        await self.enter_room(sid, room)

    async def on_number(self, sid: str, number: int) -> int:
        note("number", sid, number=number)
        return number

    async def on_slow_number(self, sid: str, number: int) -> int:
        note("number", sid, number=number)
        await sio.sleep(0.05)
        return number

    async def on_size(self, sid: str, data: bytes) -> int:
        note("size", sid, size=len(data))
        return len(data)

    async def on_wait(self, sid: str, path: str) -> str:
        """For a file that a test makes."""
        note("waits", sid)
        with open(path + ".begun", "w"):
            pass
        while not os.path.exists(path):
            await sio.sleep(0.02)
        note("waited", sid)
        return "waited"

    async def on_ask_me(self, sid: str, question: str) -> Any:
        return await self.call("question", question, to=sid, timeout=30)

    async def on_ask(self, sid: str, other: str, question: str) -> Any:
        return await self.call("question", question, to=other, timeout=30)

    async def on_ask_in_passing(self, sid: str, other: str, question: str) -> None:
        """The answer comes when the handler has ended."""

        async def answered(*answer: Any) -> None:
            await self.emit("answered", answer, to=sid)

        await self.emit("question", question, to=other, callback=answered)

    async def on_ask_all(self, sid: str, room: str, question: str) -> list[Any]:
        answers = await manager.emit_with_acks("question", question, room=room, timeout=40)
        return [list(answers), answers.timed_out, answers.missing]

    async def on_move(self, sid: str, sids: list[str], room: str) -> None:
        """Others into a room, each by a way of its own; what is emitted there comes after that."""
        await manager.sockets_join(f"{room}-all", room=sids)
        for other in sids:
            await manager.enter_room(other, self.namespace, room)
        await self.emit("moved", room, to=room)
        await self.emit("moved", f"{room}-all", to=f"{room}-all")
        await manager.sockets_leave(f"{room}-all", room=sids)
        await self.emit("moved", "nobody is there", to=f"{room}-all")

    async def on_emit_to(self, sid: str, to: str, event: str, data: Any) -> None:
        await self.emit(event, data, to=to)

    async def on_emit_volatile(self, sid: str, to: str, event: str, data: Any) -> None:
        await manager.emit(event, data, self.namespace, room=to, volatile=True)

    async def on_emit_bytes(self, sid: str, to: str, event: str, size: int) -> None:
        await self.emit(event, {"bytes": bytes(size)}, to=to)

    async def on_count(self, sid: str, to: str, event: str, numbers: int, size: int) -> None:
        """As fast as it can, with so many characters beside each number."""
        for number in range(numbers):
            await self.emit(event, (number, "x" * size), to=to)
        note("counted", sid)

    async def on_count_slowly(self, sid: str, event: str) -> int:
        """To everybody, and to the room of the same name, until that is over; how many."""
        _over.discard(event)
        number = 0
        while event not in _over and number < MOST:
            await self.emit(event, number)
            await self.emit(f"{event}-room", number, room=event)
            number += 1
            await sio.sleep(0.015)
        return number

    async def on_over(self, sid: str, event: str) -> None:
        _over.add(event)

    async def on_disconnect_sid(self, sid: str, other: str) -> None:
        await self.disconnect(other)


sio.register_namespace(Events("/"))
sio.register_namespace(Events("/room"))


async def web(request: portable.Request) -> portable.Answer:
    return portable.Answer(str(os.getpid()).encode())


app = portable.application(sio, portable.web(web))
