"""The options: those of engineio, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor_sio.engine.options import Options


class Server:
    """The option attributes of an ``engineio.Server``."""

    ping_interval = 5
    ping_interval_grace_period = 1
    ping_timeout = 3.5
    max_http_buffer_size = 1000
    allow_upgrades = True
    http_compression = False
    compression_threshold = 10
    cookie = {"name": "io", "path": "/"}
    cors_allowed_origins = ["http://a.example", "http://b.example"]
    cors_credentials = False
    transports = ["polling", "websocket"]
    handlers = "and much more"


def test_those_of_a_server() -> None:
    options = Options.of(Server())
    assert options.ping_interval == 5 and options.ping_interval_grace_period == 1
    assert options.cookie == {"name": "io", "path": "/"} and not options.http_compression


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("ping_interval", value) for value in (0, -1, "25", None, True, float("nan"))),
        *(("ping_timeout", value) for value in (0, float("inf"))),
        *(("max_http_buffer_size", value) for value in (0, "1000000")),
        ("ping_interval_grace_period", -1),
        ("compression_threshold", "much"),
        *(("transports", value) for value in ([], ["polling", "flash"], "polling", None)),
        ("cookie", 5),
        *(("cors_allowed_origins", value) for value in (5, [5], ["http://a", None])),
    ],
)
def test_what_is_wrong_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        Options(**{name: value})


@pytest.mark.parametrize("value", [None, "*", "http://a", [], ("*",), {"http://a"}, print])
def test_origins(value: Any) -> None:
    assert Options(cors_allowed_origins=value).cors_allowed_origins == value


def test_upgrades() -> None:
    assert Options().upgrades("polling") == ["websocket"]
    assert Options().upgrades("websocket") == []
    assert Options(allow_upgrades=False).upgrades("polling") == []
    assert Options(transports=["polling"]).upgrades("polling") == []
