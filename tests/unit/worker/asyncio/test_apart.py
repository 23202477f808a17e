"""A coroutine that is ended when its condition does not hold any more."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Callable, Coroutine, Optional

import pytest

from supervisor_sio.worker.asyncio.apart import Ended
from supervisor_sio.worker.asyncio.runtime import AsyncioRuntime

from .rig import until

variable: ContextVar[str] = ContextVar("variable", default="none")


class Run:
    def __init__(
        self, runtime: AsyncioRuntime, function: Callable[[Run], Coroutine[Any, Any, Any]]
    ) -> None:
        self.may_run = True
        self.steps = 0
        self.cleaned = False
        self.ended: list[Optional[BaseException]] = []
        self.watch = runtime.run_apart(
            "test", lambda: function(self), lambda: self.may_run, self.ended.append
        )

    async def wait(self) -> Any:
        await until(lambda: self.ended)
        (error,) = self.ended
        return error


@pytest.fixture
def runtime(loop: asyncio.AbstractEventLoop) -> AsyncioRuntime:
    return AsyncioRuntime(loop)


async def steps(run: Run) -> None:
    try:
        while True:
            run.steps += 1
            await asyncio.sleep(0.001)
    finally:
        await asyncio.sleep(0)
        run.cleaned = True


def test_what_it_returns_and_raises(
    runtime: AsyncioRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(run: Run) -> None:
        await asyncio.sleep(0)
        raise ArithmeticError

    async def succeed(run: Run) -> str:
        assert variable.get() == "none"
        return "ignored"

    async def test() -> None:
        variable.set("of the one that starts it")
        assert isinstance(await Run(runtime, fail).wait(), ArithmeticError)
        assert await Run(runtime, succeed).wait() is None

    runtime.run_until_complete(test())
    assert not caplog.text


def test_it_is_cancelled(runtime: AsyncioRuntime) -> None:
    async def test() -> None:
        run = Run(runtime, steps)
        await asyncio.sleep(0.01)
        run.watch.cancel()
        assert isinstance(await run.wait(), asyncio.CancelledError) and run.cleaned
        run = Run(runtime, steps)
        run.watch.cancel()  # before it has begun
        assert isinstance(await run.wait(), asyncio.CancelledError) and not run.steps

    runtime.run_until_complete(test())


def test_it_does_not_begin_when_it_may_not(runtime: AsyncioRuntime) -> None:
    async def test() -> None:
        run = Run(runtime, steps)
        run.may_run = False
        assert isinstance(await run.wait(), Ended) and not run.steps

    runtime.run_until_complete(test())


async def _sleep() -> None:
    await asyncio.sleep(0.01)


async def _future() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, future.set_result, None)
    await future


async def _task() -> None:
    await asyncio.create_task(asyncio.sleep(0.01))


async def _with_timeout() -> None:
    await asyncio.wait_for(asyncio.sleep(0.01), 5)


async def _timeout() -> None:
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)
    except asyncio.TimeoutError:
        pass


async def _failure() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, future.set_exception, ArithmeticError())
    try:
        await future
    except ArithmeticError:
        pass


@pytest.mark.parametrize("wait", [_sleep, _future, _task, _with_timeout, _timeout, _failure])
def test_whatever_it_waits_for_it_does_not_go_on_when_it_may_not(
    runtime: AsyncioRuntime, wait: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    async def function(run: Run) -> None:
        run.steps += 1
        await wait()
        run.steps += 1

    async def test() -> None:
        run = Run(runtime, function)
        await until(lambda: run.steps)
        run.may_run = False
        assert isinstance(await run.wait(), Ended) and run.steps == 1

    runtime.run_until_complete(test())


def test_its_clean_up_may_wait_when_it_may_not_run(runtime: AsyncioRuntime) -> None:
    async def test() -> None:
        run = Run(runtime, steps)
        await until(lambda: run.steps > 1)
        run.may_run = False
        before = run.steps
        assert isinstance(await run.wait(), Ended)
        assert run.cleaned and run.steps == before

    runtime.run_until_complete(test())


def test_what_it_awaits_gets_what_comes(runtime: AsyncioRuntime) -> None:
    async def function(run: Run) -> None:
        assert await asyncio.wait_for(asyncio.sleep(0.001, "a value"), 5) == "a value"
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(60), 0.001)
        results = await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))
        assert results == [1, 2]

    async def test() -> None:
        assert await Run(runtime, function).wait() is None

    runtime.run_until_complete(test())
