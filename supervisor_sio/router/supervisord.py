"""The router's end of the channel to supervisord: commands come in, figures and answers go out."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import select
import socket
from collections import deque
from typing import Any, Callable, Iterable, Iterator

from ..common import channel
from ..common.channel import ChannelError, Message, Packet
from ..common.limits import MAX_REASON, MOST_ANSWERS
from ..common.rundir import RunDir

logger = logging.getLogger("supervisor_sio.router")


class CommandError(Exception):
    """A command of ``supervisorctl sio`` cannot be executed; the text says why."""


def connect(run_dir: RunDir) -> tuple[socket.socket, Packet]:
    """Ask supervisord for the listening sockets.

    :raises ChannelError: when supervisord refuses, with its reason.
    :raises OSError: when supervisord does not answer.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(10)
    sock.connect(run_dir.supervisord)
    with contextlib.suppress(BrokenPipeError):  # already refused; the reason can still be read
        channel.send(sock, {"type": "hello", "version": channel.VERSION, "role": "router"})
    if not select.select([sock], [], [], 10)[0]:
        raise TimeoutError(errno.ETIMEDOUT, "no answer within 10 seconds")
    packet = channel.receive(sock, channel.MAX_DESCRIPTORS)
    if packet is None:
        raise ChannelError("supervisord closed the channel")
    if packet.message["type"] == "refused":
        raise ChannelError(str(packet.message.get("reason")))
    channel.check_version(packet.message, "supervisord")
    sock.setblocking(False)
    return sock, packet


class SupervisordChannel:
    """Never blocks: answers are queued until supervisord reads; figures are skipped meanwhile.

    :param execute: executes a command; its exception becomes the command's answer.
    """

    def __init__(self, sock: socket.socket, execute: Callable[[Message], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._execute = execute
        #: The messages of each answer that is not sent yet.
        self._answers: deque[Iterator[Message]] = deque()
        #: The next message, when supervisord did not read.
        self._due: bytes = b""
        #: Whether supervisord has the channel open; it closes it when it begins to stop.
        self.open = True

    def listen(self) -> None:
        self._loop.add_reader(self._sock, self.read)

    def read(self) -> None:
        """Handle all that supervisord has sent so far."""
        while self.open and self._read_one():
            pass

    def _read_one(self) -> bool:
        try:
            packet = channel.receive(self._sock, 0)
        except BlockingIOError:
            return False
        except (OSError, ChannelError):
            packet = None
        if packet is None:
            # supervisord is stopping, and will stop this process; or it is gone, and standard input
            # will end. Until then, keep serving.
            self.open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            return False
        try:
            self._execute(packet.message)
        except CommandError as reason:
            self.result(packet.message, str(reason))
        except Exception as error:
            logger.exception("command %s", packet.message["type"])
            self.result(packet.message, f"the router failed: {type(error).__name__}: {error}")
        return True

    def result(self, command: Message, error: str = "") -> None:
        """Send the result of a command."""
        end = {"type": "result", "id": command.get("id"), "error": error[:MAX_REASON]}
        self.answer(iter([end]))

    def answer(self, messages: Iterator[Message]) -> None:
        """Queue the messages of an answer, which may be longer than the socket's buffer."""
        if len(self._answers) == MOST_ANSWERS:
            logger.error("supervisord does not read: an answer is dropped")
            return
        self._answers.append(messages)
        if len(self._answers) == 1 and not self._due:
            self._flush()

    def figures(self, messages: Iterable[bytes]) -> None:
        """Send the messages, or as many as fit now: supervisord ignores an incomplete set."""
        if not self.open:
            return
        try:
            for data in messages:
                channel.send_encoded(self._sock, data)
        except OSError:
            pass  # busy or stopping; new figures follow within a second

    def _flush(self) -> None:
        while self.open:
            if not self._due:
                self._due = self._next()
                if not self._due:
                    break
            try:
                channel.send_encoded(self._sock, self._due)
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._flush)
                return
            except OSError:
                self._answers.clear()
            self._due = b""
        self._loop.remove_writer(self._sock)

    def _next(self) -> bytes:
        """The next message, or b"". Answers that cannot be encoded are dropped."""
        while self._answers:
            try:
                return channel.encode(next(self._answers[0]))
            except StopIteration:
                self._answers.popleft()
            except Exception as error:
                logger.error("an answer to supervisord is dropped: %s", error)
                self._answers.popleft()
        return b""


def in_messages(figures: Message, workers: list[Any]) -> list[bytes]:
    """Encode the figures as messages, with the workers' rows split into parts."""
    parts = list(channel.in_parts(workers))
    return [
        channel.encode(
            {
                "type": "figures",
                "workers": part,
                "first": number == 0,
                "last": number == len(parts) - 1,
                **(figures if number == 0 else {}),
            }
        )
        for number, part in enumerate(parts)
    ]
