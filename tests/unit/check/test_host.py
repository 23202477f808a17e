from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from supervisor_sio.check.host import (
    ENTER,
    READ,
    WRITE,
    User,
    command_fault,
    lets_in,
    obstacle,
    overlap,
    user,
)
from supervisor_sio.common.addresses import parse_address, resolve


@pytest.mark.parametrize(
    ("mode", "who", "want", "may"),
    [
        (0o700, User(0, frozenset(), ""), ENTER, True),
        (0o700, User(5, frozenset(), ""), ENTER, True),
        (0o070, User(5, frozenset({6}), ""), ENTER, False),  # the owner's bits count alone
        (0o070, User(7, frozenset({6}), ""), WRITE | ENTER, True),
        (0o707, User(7, frozenset({6}), ""), READ, False),
        (0o701, User(7, frozenset(), ""), ENTER, True),
        (0o701, User(7, frozenset(), ""), ENTER | READ, False),
    ],
)
def test_permission_bits(mode: int, who: User, want: int, may: bool) -> None:
    assert lets_in(mode, 5, 6, who, want) is may


def test_the_obstacle_is_the_first_on_the_way(tmp_path: Path) -> None:
    stranger = User(54321, frozenset(), "stranger")
    assert obstacle("/etc/passwd", stranger, READ) is None
    assert obstacle("/etc/passwd", stranger, WRITE) == "/etc/passwd"
    assert obstacle("/no/such/file", stranger, READ) is None
    file = tmp_path / "closed" / "file"
    file.parent.mkdir(mode=0o700)
    file.touch()
    found = obstacle(str(file), stranger, READ)
    assert found is not None
    assert not os.stat(found).st_mode & stat.S_IXOTH


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("0.0.0.0:80", "127.0.0.2:80", True),
        ("0.0.0.0:80", "127.0.0.2:81", False),
        ("[::]:80", "[::1]:80", True),
        ("[::]:80", "0.0.0.0:80", False),
    ],
)
def test_places_overlap(one: str, other: str, expected: bool) -> None:
    first, second = (resolve(parse_address(text))[0] for text in (one, other))
    assert overlap(first, second) == overlap(second, first) == expected


def test_users() -> None:
    assert user(0).name == "root"
    assert user(54321).name == "with uid 54321"


def test_commands(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "sub").mkdir()
    path = [str(tmp_path), "/bin"]
    assert command_fault("sh", path, "/") is None
    assert command_fault("bin/sh", path, "/") is None
    assert command_fault("no/sh", path, "/") == "no/sh does not exist"
    # supervisord looks no further than the first of that name.
    assert command_fault("plain", path, "/") == f"{tmp_path}/plain is not executable"
    assert command_fault("sub", path, "/") == f"{tmp_path}/sub is a directory"
