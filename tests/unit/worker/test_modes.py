from __future__ import annotations

import subprocess
import sys

import pytest

from supervisor_sio.common.modes import ASYNC_MODES
from supervisor_sio.worker import modes
from supervisor_sio.worker.application import ApplicationError
from supervisor_sio.worker.modes import installer
from unit.pythons import NEW_PYTHON


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("eventlet", "eventlet", "supervisor-sio"),
        pytest.param("asyncio", "uvicorn", "supervisor-sio[asyncio]", marks=NEW_PYTHON),
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


@NEW_PYTHON
@pytest.mark.parametrize("name", ["asyncio", "threading"])
def test_a_mode_imports_no_other(name: str) -> None:
    program = (
        "import sys\n"
        "from supervisor_sio import ZmqManager\n"
        "from supervisor_sio.common.modes import ASYNC_MODES\n"
        "from supervisor_sio.worker import modes, service, supervised\n"
        f"mode = ASYNC_MODES[{name!r}]\n"
        "modes.installer(mode)\n"
        "modes.make_runtime(mode)\n"
        "from supervisor_sio.worker import clients\n"
        "print(*{m.partition('.')[0] for m in sys.modules} & {'eventlet', 'gevent', 'a2wsgi'})\n"
        "print('uvicorn' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    others, uvicorn = ran.stdout.splitlines()
    assert others == ""
    if name == "threading":
        assert uvicorn == "False"
