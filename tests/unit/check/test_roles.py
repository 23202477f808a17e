from __future__ import annotations

import pytest

from supervisor_sio.check.roles import Role, role_of


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("supervisor-sio router", Role.ROUTER),
        ("/opt/my app/bin/supervisor-sio  router", Role.ROUTER),
        ("nice -n 5 supervisor-sio worker a:b", Role.WORKER),
        ("sh -c 'cd /srv && exec supervisor-sio worker a:b'", Role.WORKER),
        ('sh -c "supervisor-sio worker a:b"', Role.WORKER),
        ("python app.py", Role.PYTHON),
        ("/opt/venv/bin/python3.11 -m app", Role.PYTHON),
        ("./app.py --port 1", Role.PYTHON),
        ("supervisor-sio", Role.OTHER),
        ("supervisor-sio workers", Role.OTHER),
        ("my-supervisor-sio worker", Role.OTHER),
        ("nginx -g 'daemon off;'", Role.OTHER),
        ("", Role.OTHER),
    ],
)
def test_roles(command: str, role: Role) -> None:
    assert role_of(command) is role
