from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.common.addresses import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("localhost:8000", Address("localhost", 8000), "localhost:8000"),
        ("*:1", Address("0.0.0.0", 1), "0.0.0.0:1"),
        (":65535", Address("0.0.0.0", 65535), "0.0.0.0:65535"),
        ("[::]:80", Address("::", 80), "[::]:80"),
        ("[fe80::1%eth0]:80", Address("fe80::1%eth0", 80), "[fe80::1%eth0]:80"),
        ("unix:/run/a.sock", Address(path="/run/a.sock"), "unix:/run/a.sock"),
        ("unix:///run/a.sock", Address(path="/run/a.sock"), "unix:/run/a.sock"),
        ("unix:/run/a:1.sock", Address(path="/run/a:1.sock"), "unix:/run/a:1.sock"),
    ],
)
def test_addresses(text: str, address: Address, shown: str) -> None:
    assert parse_address(text) == address
    assert str(address) == shown
    assert parse_address(shown) == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is not host:port"),
        ("localhost", "'localhost' is not host:port"),
        ("localhost:", "'localhost:' is not host:port"),
        ("localhost:http", "'localhost:http' is not host:port"),
        ("localhost:0", "'localhost:0' is not host:port"),
        ("localhost:65536", "'localhost:65536' is not host:port"),
        ("localhost:-1", "'localhost:-1' is not host:port"),
        ("localhost: 80", "'localhost: 80' is not host:port"),
        ("::1:8000", "'::1:8000': write an IPv6 address in brackets, as in [::1]:8000"),
        ("[::1]:", "'[::1]:' is not host:port"),
        ("unix:run/a.sock", "'unix:run/a.sock' needs an absolute path, as in unix:/run/app.sock"),
        ("unix:", "'unix:' needs an absolute path"),
    ],
)
def test_bad_addresses(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_address(text)
    assert str(caught.value).startswith(reason)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_an_address_reads_as_it_is_written(ip: Any, port: int) -> None:
    address = Address(str(ip), port)
    assert parse_address(str(address)) == address
