"""The stream of this host's messages to other hosts: numbered, and kept.

It belongs to the host, not to the router, and goes on where it was when a router is killed. The
messages are kept in :mod:`.stream_file`: for other hosts that ask for them again, and for Redis
while it is away. So is which of the workers' messages are in it, and which were given to Redis.
"""

from __future__ import annotations

import errno
import math
import os
import secrets
import threading
from collections import OrderedDict
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from ..common.limits import (
    BRIDGE_BATCH,
    BRIDGE_LONGEST,
    BRIDGE_MOST_ORIGINS,
    BRIDGE_MOST_OTHERS,
    BRIDGE_MOST_WAITING,
    BRIDGE_MOST_WAITING_BYTES,
)
from ..relay.methods import BRIDGE
from ..relay.position import Part
from .stream_file import Messages, Origin, State

#: The version of the saved state.
_FORMAT = 1

#: The length of an answer without its messages: it has the names of two hosts and two numbers.
_LONGEST_HEAD = 1024


class Again(NamedTuple):
    """An answer to a host that missed messages."""

    #: The number of the first message here; earlier ones are not kept any more.
    first: int
    messages: list[bytes]


class HostStream:
    """The stream of this host. Safe to use from several threads.

    :param descriptors: of three files in memory, which outlive this process:
        :data:`.memory_file.HOST_FILES`. They stay open.
    :param now: by the host's monotonic clock, in seconds.
    """

    def __init__(self, descriptors: Sequence[int], now: float) -> None:
        state, *messages = descriptors
        self._lock = threading.Lock()
        self._state = State(state)
        saved = self._state.read()
        if saved is None or saved[0] != _FORMAT:
            # No state, or another version's: begin anew. Messages without a state are of no use.
            saved = None
            for descriptor in descriptors:
                os.ftruncate(descriptor, 0)
        #: Whether a former router began the stream.
        self.continued = saved is not None
        #: The name under which other hosts know this one.
        self.id = f"bridge-{secrets.token_hex(6)}"
        #: Messages that workers sent from then on are for other hosts.
        self._since = now
        #: Number of the last message.
        self.last = 0
        #: Number of messages that other hosts never get: there was no room for them, say.
        self.unsent = 0
        #: By sender: the last numbers read, to all and to the bridge alone, and the time of the
        #: last message; the least recent first.
        self._read: OrderedDict[str, list[Any]] = OrderedDict()
        #: By bridge: the number up to which all workers here have its messages, at least.
        self.passed: dict[str, int] = {}
        if saved is not None:
            _, self.id, self._since, self.last, self.unsent, read, self.passed = saved
            self._read.update(read)
        #: Messages up to this number were given to Redis.
        self.given = self._state.read_given()
        files = [Messages(descriptor, self._note) for descriptor in messages]
        self._old, self._current = sorted(files, key=lambda file: file.last)
        self.last = max(self.last, self._current.last, self._old.last, self.given)
        self._waiting_bytes = sum(file.bytes_after(self.given) for file in files)
        self._changed = not self.continued

    @property
    def waiting(self) -> int:
        """The number of messages that are yet to be given to Redis."""
        with self._lock:
            return self._waiting

    @property
    def _waiting(self) -> int:
        return sum(len(file) - file.index_after(self.given) for file in (self._old, self._current))

    def part(self) -> Part:
        """The position from which the bridge goes on to read this host's processes."""
        with self._lock:
            senders = {
                sender: [True, to_all + 1, to_all, {BRIDGE: [alone + 1, alone]}, False]
                for sender, (to_all, alone, _) in self._read.items()
            }
            return Part((BRIDGE,), self._since, senders, {})

    def add(self, origin: Origin, encode: Callable[[int], bytes]) -> bool:
        """Number a message and keep it; one that is in the stream already is ignored.

        :param encode: encodes the message with its number.
        :return: whether there was room for it. If not, it is counted, and other hosts miss it.
        :raises OSError: when there is no memory for it, or it is too long; the same holds.
        """
        with self._lock:
            if not self._is_new(origin):
                return True
            data = encode(self.last + 1)
            self.last += 1
            full = (
                self._waiting >= BRIDGE_MOST_WAITING
                or self._waiting_bytes + len(data) > BRIDGE_MOST_WAITING_BYTES
            )
            try:
                length = _length_in_answer(data)
                if length > BRIDGE_LONGEST:
                    raise OSError(errno.EMSGSIZE, f"{length} bytes, more than {BRIDGE_LONGEST}")
                if not full:
                    self._room().add(self.last, origin, data)
                    self._waiting_bytes += len(data)
            except OSError:
                full = True
                raise
            finally:
                self.unsent += full
                self._note(origin)
            return not full

    def lose(self, count: int) -> None:
        """Count messages that were lost before they were read: other hosts miss them."""
        with self._lock:
            self.last += count
            self.unsent += count
            self._changed = True

    def skip(self, origin: Origin) -> None:
        """Note that a message was read, and is not for other hosts."""
        with self._lock:
            if self._is_new(origin):
                self._note(origin)

    def _room(self) -> Messages:
        """The file for the next message. When it is full, the older file is emptied for it.

        Then all waiting messages are in the full one: its limit is that of waiting messages.
        """
        current = self._current
        if len(current) >= BRIDGE_MOST_WAITING or current.bytes >= BRIDGE_MOST_WAITING_BYTES:
            self._write_state()  # with the positions of messages that are in neither file then
            self._old, self._current = self._current, self._old
            self._current.clear()
        return self._current

    def _is_new(self, origin: Origin) -> bool:
        return bool(origin.number > self._read.get(origin.sender, (0, 0))[origin.alone])

    def _note(self, origin: Origin) -> None:
        row = self._read.setdefault(origin.sender, [0, 0, 0.0])
        row[origin.alone] = max(row[origin.alone], origin.number)
        row[2] = max(row[2], origin.time)
        self._read.move_to_end(origin.sender)
        if len(self._read) > BRIDGE_MOST_ORIGINS:
            _, (_, _, time) = self._read.popitem(last=False)
            # If the sender comes back: its messages up to that time must not be read again.
            self._since = max(self._since, math.nextafter(time, math.inf))
        self._changed = True

    # --- for Redis, and for hosts that missed messages ------------------------------

    def take(self, most: int) -> list[bytes]:
        """Take the next messages for Redis, which count as given from now on.

        If this process is killed now, it is not known whether they reach Redis. Other hosts ask for
        what they lack, and stock servers get nothing twice.
        """
        with self._lock:
            for file in (self._old, self._current):
                at = file.index_after(self.given)
                if at < len(file):
                    messages = file.read(at, most, BRIDGE_BATCH)
                    self._waiting_bytes -= sum(map(len, messages))
                    self._give(file.numbers[at + len(messages) - 1])
                    return messages
            # The last numbers had no room: other hosts see from the number that they lack them.
            self._give(self.last)
            return []

    def give_back(self, count: int) -> None:
        """Redis has refused the last ``count`` messages that were taken."""
        with self._lock:
            for file in (self._current, self._old):
                end = file.index_after(self.given)
                begin = max(0, end - count)
                if begin < end:
                    given = file.numbers[begin] - 1
                    self._waiting_bytes += file.bytes_after(given) - file.bytes_after(self.given)
                    self._give(given)
                count -= end - begin

    def _give(self, number: int) -> None:
        if number != self.given:
            self._state.write_given(number)
            self.given = number

    def again(self, first: int, last: int) -> Again:
        """A batch of messages from ``first`` on, up to the next gap or to ``last``."""
        with self._lock:
            for file in (self._old, self._current):
                at = file.index_after(first - 1)
                if at < len(file):
                    first = max(first, file.numbers[at])
                    if first <= last:
                        count = last + 1 - first
                        return Again(first, file.read(at, count, BRIDGE_BATCH, in_a_row=True))
                    break
            return Again(last + 1, [])

    # --- for the next router --------------------------------------------------------

    def note_passed(self, passed: Mapping[str, int]) -> None:
        """Note that all workers here have the messages of these bridges, up to these numbers."""
        with self._lock:
            for bridge, number in passed.items():
                if self.passed.get(bridge) != number:
                    self.passed.pop(bridge, None)  # moves it to the end
                    self.passed[bridge] = number
                    self._changed = True
            while len(self.passed) > BRIDGE_MOST_OTHERS:
                del self.passed[next(iter(self.passed))]

    def save(self) -> None:
        """Save what the files of messages do not have; called every second or so.

        :raises OSError: when there is no memory for it.
        """
        with self._lock:
            if self._changed:
                self._write_state()
                self._changed = False

    def _write_state(self) -> None:
        read = dict(self._read)
        state = [_FORMAT, self.id, self._since, self.last, self.unsent, read, self.passed]
        self._state.write(state)


def _length_in_answer(message: bytes) -> int:
    """The length of an answer with this message: both are JSON."""
    return len(message) + message.count(b'"') + message.count(b"\\") + _LONGEST_HEAD
