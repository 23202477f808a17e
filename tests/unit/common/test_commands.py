from __future__ import annotations

import pytest

from supervisor_sio.common.commands import program_of, subcommand_of


@pytest.mark.parametrize(
    ("command", "program", "subcommand"),
    [
        ("supervisor-sio worker chat:app", "supervisor-sio", "worker"),
        ("/srv/my\\ app/bin/supervisor-sio worker a:b", "/srv/my app/bin/supervisor-sio", "worker"),
        (
            "'/srv/my app/bin/supervisor-sio'  worker a:b",
            "/srv/my app/bin/supervisor-sio",
            "worker",
        ),
        ("nice -n 5 supervisor-sio worker chat:app", "nice", "worker"),
        ("bash -c 'exec supervisor-sio router'", "bash", "router"),
        ("supervisor-sio", "supervisor-sio", ""),
        ("my-supervisor-sio worker", "my-supervisor-sio", None),
        ("echo worker supervisor-sio", "echo", ""),
        ("supervisor-sio 'worker", "", ""),
        ("", "", None),
    ],
)
def test_what_a_command_starts(command: str, program: str, subcommand: str | None) -> None:
    assert program_of(command) == program
    assert subcommand_of(command) == subcommand
