from __future__ import annotations

import asyncio

from supervisor_sio.router.throttle import Throttle
from unit.router.harness import wait_for


def test_many_reasons_make_few_calls() -> None:
    async def scenario() -> None:
        calls = []
        ask = Throttle(asyncio.get_running_loop(), 0.02, lambda: calls.append(1))
        ask()
        assert len(calls) == 1  # who asks once does not wait
        for _ in range(100):
            ask()
        assert len(calls) == 1
        await asyncio.sleep(0.05)
        assert len(calls) == 2
        await asyncio.sleep(0.05)
        ask()
        assert len(calls) == 3
        await asyncio.sleep(0.05)

    asyncio.run(scenario())


def test_a_call_may_ask_again() -> None:
    async def scenario() -> None:
        calls = []

        def call() -> None:
            calls.append(1)
            if len(calls) < 3:
                ask()

        ask = Throttle(asyncio.get_running_loop(), 0.01, call)
        ask()
        assert len(calls) == 1
        await wait_for(lambda: len(calls) == 3)
        await asyncio.sleep(0.05)
        assert len(calls) == 3

    asyncio.run(scenario())
