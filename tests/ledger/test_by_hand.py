"""A server started by hand says what is wrong with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster.harness import free_port, server_environment, wait_until
from cluster.modes import EVENTLET

pytestmark = EVENTLET


@contextmanager
def server(tmp_path: Path, *args: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    output = tmp_path / f"output-{len(list(tmp_path.iterdir()))}"
    with (
        output.open("wb") as file,
        subprocess.Popen(
            [sys.executable, *args],
            cwd=Path(__file__).parent,
            stderr=file,
            env=server_environment(),
        ) as process,
    ):
        try:
            yield process, output
        finally:
            process.kill()


def test_two_servers_never_share_a_port(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with server(tmp_path, "unpatched_app.py", address) as (_, output):
        wait_until(lambda: "Serving on" in output.read_text(), 60, "listening")
        with server(tmp_path, "unpatched_app.py", address) as (second, refusal):
            assert second.wait(60) == 1
        host, port = address.split(":")
        assert (
            f"supervisor_sio.serve: error: cannot listen on {address}: address already in use; "
            "stop the program that listens there, or "
            f'serve(app, listen="{host}:{int(port) + 1}")\n'
        ) in refusal.read_text()


@pytest.mark.parametrize("patched", [False, True])
def test_a_server_without_the_patches_says_so(tmp_path: Path, patched: bool) -> None:
    args = ["unpatched_app.py", f"127.0.0.1:{free_port()}", *(["patched"] if patched else [])]
    with server(tmp_path, *args) as (_, output):
        wait_until(lambda: "Serving on" in output.read_text(), 60, "listening")
    lines = [line for line in output.read_text().splitlines() if "monkey_patch()" in line]
    assert len(lines) == (not patched)


def test_one_process_needs_no_manager(tmp_path: Path) -> None:
    program = (
        "import eventlet; eventlet.monkey_patch()\n"
        "from supervisor_sio import serve\n"
        "from wrong_app import no_manager\n"
        f"serve(no_manager(), '127.0.0.1:{free_port()}')\n"
    )
    with server(tmp_path, "-c", program) as (_, output):
        wait_until(lambda: "Serving on" in output.read_text(), 60, "listening")
