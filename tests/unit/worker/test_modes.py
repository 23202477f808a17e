from __future__ import annotations

import sys

import pytest

from supervisor_sio.common.modes import ASYNC_MODES
from supervisor_sio.worker import modes
from supervisor_sio.worker.application import ApplicationError
from supervisor_sio.worker.modes import installer


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("eventlet", "eventlet", "supervisor-sio"),
        ("asyncio", "uvicorn", "supervisor-sio[asyncio]"),
    ],
)
def test_a_module_is_missing(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ApplicationError) as raised:
        installer(ASYNC_MODES[name])
    assert str(raised.value) == (
        f"--async-mode {name} needs {module}, which {sys.executable} does not have: "
        f"{sys.executable} -m pip install '{package}'"
    )


def test_python_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes.sys, "version_info", (3, 9, 18))
    with pytest.raises(ApplicationError) as raised:
        installer(ASYNC_MODES["asyncio"])
    assert str(raised.value) == "--async-mode asyncio needs Python 3.10, this is 3.9"
