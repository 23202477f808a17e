from __future__ import annotations

import asyncio
import os
import socket
from typing import Awaitable, Callable

from supervisor_sio.router.readable import Readable

Pair = tuple[socket.socket, socket.socket]


class Harness:
    def __init__(self) -> None:
        self.called: list[int] = []
        self.on_call: Callable[[int], None] = self.called.append
        self.readable = Readable(asyncio.get_running_loop(), lambda number: self.on_call(number))
        self.pairs: list[Pair] = []

    def pair(self) -> Pair:
        self.pairs.append(socket.socketpair())
        return self.pairs[-1]

    async def turn(self) -> None:
        self.called.clear()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def run(scenario: Callable[[Harness], Awaitable[None]]) -> None:
    async def main() -> None:
        harness = Harness()
        try:
            await scenario(harness)
        finally:
            for pair in harness.pairs:
                for sock in pair:
                    sock.close()

    asyncio.run(main())


def test_each_is_called_for_as_long_as_it_is_readable() -> None:
    async def scenario(harness: Harness) -> None:
        pairs = [harness.pair() for _ in range(3)]
        numbers = [ours.fileno() for ours, _ in pairs]
        for number in numbers:
            harness.readable.add(number)
        await harness.turn()
        assert not harness.called
        pairs[0][1].send(b"x")
        pairs[2][1].shutdown(socket.SHUT_RDWR)
        await harness.turn()
        assert set(harness.called) == {numbers[0], numbers[2]}
        pairs[0][0].recv(1)
        harness.readable.remove(numbers[2])
        await harness.turn()
        assert not harness.called

    run(scenario)


def test_one_that_is_open_elsewhere_is_not_called_any_more() -> None:
    async def scenario(harness: Harness) -> None:
        ours, theirs = harness.pair()
        harness.readable.add(ours.fileno())
        elsewhere = os.dup(ours.fileno())
        harness.readable.remove(ours.fileno())
        ours.close()
        theirs.send(b"x")
        await harness.turn()
        assert not harness.called
        os.close(elsewhere)

    run(scenario)


def test_many_have_their_turns() -> None:
    async def scenario(harness: Harness) -> None:
        numbers = set()
        for _ in range(200):
            ours, theirs = harness.pair()
            harness.readable.add(ours.fileno())
            theirs.send(b"x")
            numbers.add(ours.fileno())
        seen: set[int] = set()
        for _ in range(10):
            await harness.turn()
            assert len(harness.called) <= 2 * 64
            seen |= set(harness.called)
        assert seen == numbers

    run(scenario)


def test_an_error_of_one_does_not_end_it_for_the_others() -> None:
    async def scenario(harness: Harness) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        (bad, _), (good, _) = pairs = [harness.pair() for _ in range(2)]

        def call(number: int) -> None:
            if number == bad.fileno():
                harness.readable.remove(number)
                raise RuntimeError("of this one")
            harness.called.append(number)

        harness.on_call = call
        for ours, theirs in pairs:
            harness.readable.add(ours.fileno())
            theirs.send(b"x")
        await harness.turn()
        await harness.turn()
        assert set(harness.called) == {good.fileno()}

    run(scenario)
