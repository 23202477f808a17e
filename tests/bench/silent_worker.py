"""A worker that does nothing but answer and close what the router hands over.

It takes the place of ``supervisor-sio worker`` where only the router is measured. What
comes on the channel is not read, so it goes with any version of the protocol.
"""

from __future__ import annotations

import array
import contextlib
import select
import socket
import time

from supervisor_sio.common import channel, figures, identity
from supervisor_sio.common.rundir import RunDir

#: Seconds between reports, as a worker's under load.
REPORT = 0.02


def main() -> None:
    run_dir = RunDir.from_environment()
    assert run_dir is not None, "it runs under supervisord, see handover.py"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(run_dir.router)
    tag = identity.tag()
    channel.send(
        sock,
        {
            "type": "hello",
            "version": channel.VERSION,
            "tag": tag,
            "name": identity.process_name(),
        },
    )
    load = {"type": "load", **figures.report({})}
    channel.send(sock, load)
    channel.send(sock, {"type": "ready", "channels": []})
    answer = f"HTTP/1.1 404 Not Found\r\nConnection: close\r\nX-Tag: {tag}\r\n\r\n".encode()
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    taken, reported_at = 0, 0.0
    while True:
        ready = poll.poll(REPORT * 1000)
        if taken and time.monotonic() - reported_at >= REPORT:
            reported_at = time.monotonic()
            load["handshakes_seen"] = taken
            channel.send(sock, load)
        if not ready:
            continue
        data, ancillary, _, _ = sock.recvmsg(65536, socket.CMSG_LEN(4))
        if not data:
            return
        for _, _, payload in ancillary:
            (descriptor,) = array.array("i", payload)
            taken += 1
            with socket.socket(fileno=descriptor) as client, contextlib.suppress(OSError):
                with contextlib.suppress(BlockingIOError):  # the router has read it already
                    client.recv(65536, socket.MSG_DONTWAIT)
                client.sendall(answer)


if __name__ == "__main__":
    main()
