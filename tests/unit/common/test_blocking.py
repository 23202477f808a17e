from __future__ import annotations

import asyncio

import pytest

from supervisor_sio.common.blocking import run_blocking


async def double(value: int) -> int:
    return 2 * value


async def quadruple(value: int) -> int:
    return await double(await double(value))


def test_what_it_returns_is_returned() -> None:
    assert run_blocking(quadruple(3)) == 12


def test_what_it_raises_is_raised() -> None:
    async def fail() -> None:
        await double(1)
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        run_blocking(fail())


def test_who_waits_for_a_loop_is_told_and_ended() -> None:
    steps: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(0)
            steps.append("went on")
        finally:
            steps.append("ended")

    with pytest.raises(RuntimeError, match="wait awaits something of asyncio"):
        run_blocking(wait())
    assert steps == ["ended"]
