"""Reverse proxies in front of a cluster, as docs/howto/proxies.md has them."""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import NamedTuple

from .harness import free_port, wait_until

#: The page with the configurations that a reader pastes, and that are tried here.
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "proxies.md"


class Proxy(NamedTuple):
    """How one of the page's configurations is run."""

    program: str
    #: The section of the page whose first block it is.
    heading: str
    #: What of the block names its own port, and what takes its place.
    listens: str
    instead: str
    #: What stands around the block.
    around: str
    arguments: str


PROXIES = {
    "nginx": Proxy(
        program="nginx",
        heading="nginx",
        listens="listen 80;",
        instead="listen {address};",
        around="""
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
""",
        arguments="-p {directory} -c {conf}",
    ),
    "haproxy": Proxy(
        program="haproxy",
        heading="HAProxy",
        listens="bind :80\n",
        instead="bind {address}\n",
        around="{block}",
        arguments="-db -f {conf}",
    ),
    "caddy": Proxy(
        program="caddy",
        heading="Caddy",
        listens="http://chat.example.org ",
        instead="http://{address} ",
        around="""
{{
    admin off
    storage file_system {directory}
}}
{block}
""",
        arguments="run --adapter caddyfile --config {conf}",
    ),
    "apache": Proxy(
        program="apache2",
        heading="Apache",
        listens="<VirtualHost *:80>",
        instead="<VirtualHost {address}>",
        around="""
ServerRoot {directory}
PidFile {directory}/apache.pid
ErrorLog {directory}/apache.log
Listen {address}
User www-data
Group www-data
Mutex file:{directory}
MaxKeepAliveRequests 0
{modules}
{block}
""",
        arguments="-DFOREGROUND -f {conf}",
    ),
}

#: Where Debian has Apache's modules; with those that the page names, the least that it runs with.
MODULES = "".join(
    f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
    for name in (
        *("mpm_event", "authz_core"),
        *("proxy", "proxy_http", "proxy_wstunnel", "headers"),
    )
)


def configuration(name: str, directory: Path, port: int, upstream: int, options: str) -> str:
    """As the page shows it, but for the ports.

    :param options: of HAProxy's ``server``.
    """
    proxy = PROXIES[name]
    found = re.search(rf"^## {proxy.heading}\n\n```\w+\n(.*?)```", PAGE.read_text(), re.M | re.S)
    assert found is not None
    block = found[1].replace("127.0.0.1:8000", f"127.0.0.1:{upstream} {options}".rstrip())
    address = f"127.0.0.1:{port}"
    assert str(upstream) in block and proxy.listens in block
    block = block.replace(proxy.listens, proxy.instead.format(address=address))
    return proxy.around.format(directory=directory, address=address, modules=MODULES, block=block)


def find(name: str) -> str | None:
    """The program of a proxy; Debian has it where users need not look."""
    path = f"{environ['PATH']}:/usr/sbin:/usr/local/sbin"
    return shutil.which(PROXIES[name].program, path=path)


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
    arguments = PROXIES[name].arguments.format(directory=directory, conf=conf).split()
    # Caddy keeps its state in the home directory.
    process = subprocess.Popen([program, *arguments], env={**environ, "HOME": str(directory)})

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
