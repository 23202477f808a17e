from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Callable

import pytest

from supervisor_sio.common.addresses import Address
from supervisor_sio.settings import SettingsError
from supervisor_sio.supervisord import listeners

NoLeak = Callable[[], AbstractContextManager[None]]

#: Port 0 lets the kernel choose; the settings do not allow it.
ANY_PORT = Address("127.0.0.1", 0)


def test_tcp() -> None:
    with listeners.bind(ANY_PORT, 16) as sock:
        with pytest.raises(BlockingIOError):
            sock.accept()
        sock.settimeout(5)
        with socket.create_connection(sock.getsockname()) as client:
            client.sendall(b"x")
            connection, _ = sock.accept()
            with connection:
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_port_in_use(no_leak: NoLeak) -> None:
    with listeners.bind(ANY_PORT, 16) as sock:
        port = sock.getsockname()[1]
        with no_leak(), pytest.raises(SettingsError) as caught:
            listeners.bind(Address("127.0.0.1", port), 16)
    assert str(caught.value) == (
        f"[rpcinterface:sio] listen: 127.0.0.1:{port}: "
        "address already in use; stop the program that listens there"
    )


def test_the_option_is_named() -> None:
    with listeners.bind(ANY_PORT, 16) as sock:
        address = Address(*sock.getsockname())
        with pytest.raises(SettingsError, match=r"^\[rpcinterface:sio\] metrics: .* in use"):
            listeners.bind(address, 16, "metrics")


def test_a_port_is_free_again_at_once() -> None:
    with listeners.bind(ANY_PORT, 16) as sock:
        address = Address("127.0.0.1", sock.getsockname()[1])
        with socket.create_connection(sock.getsockname()):
            listeners.close(sock, address)
    listeners.bind(address, 16).close()


def test_both_families_of_one_port() -> None:
    try:
        with listeners.bind(Address("::", 0), 16) as sock:
            port = sock.getsockname()[1]
            with listeners.bind(Address("0.0.0.0", port), 16):
                pass
    except SettingsError as error:
        if "family not supported" in str(error) or "Cannot assign" in str(error):
            pytest.skip("no IPv6 here")
        raise


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_is_not_ours(host: str, no_leak: NoLeak) -> None:
    with no_leak(), pytest.raises(SettingsError) as caught:
        listeners.bind(Address(host, 8000), 16)
    assert str(caught.value).startswith(f"[rpcinterface:sio] listen: {host}:8000: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["example..org", "x" * 64 + ".org"])
def test_a_host_that_can_be_no_name(host: str) -> None:
    with pytest.raises(SettingsError, match=r"^\[rpcinterface:sio\] listen: "):
        listeners.bind(Address(host, 8000), 16)


def test_unix(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "s"))
    with listeners.bind(address, 16) as sock:
        assert stat.S_IMODE(os.stat(address.path).st_mode) == 0o666
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address.path)
            sock.accept()[0].close()
        listeners.close(sock, address)
    assert not os.path.exists(address.path)
    listeners.close(sock, address)


def test_a_unix_socket_is_made_with_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """chmod() by path could change another file."""
    monkeypatch.setattr(os, "chmod", None)
    before = os.umask(0o077)
    try:
        listeners.bind(Address(path=str(tmp_path / "s")), 16).close()
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "s").st_mode) == 0o666


@pytest.mark.parametrize(
    ("dropped", "cause"),
    [
        (True, r"user = .* in \[supervisord\] drops root's rights"),
        (False, "only root .*started supervisord; start it as root"),
    ],
)
def test_a_low_port_names_the_cause(
    dropped: bool, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind(address: Address, *_: object) -> socket.socket:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(listeners, "_bind_tcp", bind)
    with pytest.raises(SettingsError, match=f"listen: 127.0.0.1:80: permission denied: .*{cause}"):
        listeners.bind(Address("127.0.0.1", 80), 16, dropped=dropped)


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "s"))
    listeners.bind(address, 16).close()  # as after a crash
    assert os.path.exists(address.path)
    with listeners.bind(address, 16), socket.socket(socket.AF_UNIX) as client:
        client.connect(address.path)


def test_a_unix_socket_in_use(tmp_path: Path, no_leak: NoLeak) -> None:
    address = Address(path=str(tmp_path / "s"))
    with listeners.bind(address, 16) as sock:
        with no_leak(), pytest.raises(SettingsError) as caught:
            listeners.bind(address, 16)
        assert str(caught.value) == (
            f"[rpcinterface:sio] listen: {address}: "
            "address already in use; stop the program that listens there"
        )
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address.path)
        sock.accept()[0].close()


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(SettingsError, match="address already in use"):
        listeners.bind(Address(path=str(tmp_path / "s")), 16)
    assert (tmp_path / "s").read_text() == "precious"


def test_unix_paths_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file or directory"):
        listeners.bind(Address(path=str(tmp_path / "no" / "s")), 16)
    with pytest.raises(SettingsError, match="AF_UNIX path too long"):
        listeners.bind(Address(path=str(tmp_path / ("s" * 120))), 16)
