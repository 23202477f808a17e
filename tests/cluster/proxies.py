"""nginx and HAProxy in front of a cluster, as docs/howto/proxies.md has them."""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from os import environ
from pathlib import Path

from .harness import free_port, wait_until

#: The page with the configurations that a reader pastes, and that are tried here.
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "proxies.md"

#: What stands around the page's block in a configuration of nginx.
NGINX = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000;
    {block}
}}
"""


def configuration(name: str, directory: Path, port: int, upstream: int, options: str) -> str:
    """As the page shows it, but for the ports.

    :param options: of HAProxy's ``server``.
    """
    blocks = re.search(f"```{name}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert blocks is not None
    block = blocks[1].replace("127.0.0.1:8000", f"127.0.0.1:{upstream} {options}".rstrip())
    assert str(upstream) in block
    if name == "nginx":
        block = block.replace("listen 80;", f"listen 127.0.0.1:{port};")
        text = NGINX.format(directory=directory, block=block)
    else:
        text = block.replace("bind :80\n", f"bind 127.0.0.1:{port}\n")
    assert f"127.0.0.1:{port}" in text
    return text


def find(name: str) -> str | None:
    """The program of a proxy; Debian has it where users need not look."""
    return shutil.which(name, path=f"{environ['PATH']}:/usr/sbin:/usr/local/sbin")


@contextmanager
def proxied(
    program: str, name: str, directory: Path, upstream: int, options: str = ""
) -> Iterator[int]:
    """A proxy in front of a port.

    :param options: of HAProxy's server.
    :return: its own port.
    """
    port, conf = free_port(), directory / f"{name}.conf"
    conf.write_text(configuration(name, directory, port, upstream, options))
    arguments = ["-p", str(directory), "-c"] if name == "nginx" else ["-db", "-f"]
    process = subprocess.Popen([program, *arguments, str(conf)])

    def listens() -> bool:
        assert process.poll() is None, f"{name} has ended"
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/socket.io/?EIO=4&transport=polling")
            return connection.getresponse().status == 200
        except OSError:
            return False

    try:
        wait_until(listens, 20, f"{name} serves")
        yield port
    finally:
        process.terminate()
        process.wait(30)
