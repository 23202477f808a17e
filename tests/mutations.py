"""Break the code in known ways, and look whether a test fails.

python tests/mutations.py              # all of them, two at a time: some minutes
python tests/mutations.py outbox tls   # those whose name or file has one of these words

Each mutation is one fault that somebody could make, and the tests that are there to notice it.
The code is changed in a copy. CI runs this once a week; tests/unit/test_mutations.py looks at each
run whether the list still fits the code.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

#: Seconds that the tests of a mutation may take: one that hangs has been noticed, too.
TIMEOUT = 100


class Mutation(NamedTuple):
    #: What users would notice of it.
    what: str
    #: Below ``supervisor_sio/``.
    file: str
    #: Is there once, and is replaced.
    old: str
    new: str
    #: Below ``tests/``, as for pytest: one of them has to fail.
    tests: tuple[str, ...]


def unlocked(what: str, file: str, lock: str, then: str, *tests: str) -> Mutation:
    """
    :param lock: the attribute with a lock that is not taken.
    :param then: the line after it, or its beginning.
    """
    return Mutation(what, file, f"with self.{lock}:\n{then}", f"if True:\n{then}", tests)


MUTATIONS = (
    # --- the router's channel to a worker
    Mutation(
        "requests that wait for a worker that dies are lost",
        "router/placement.py",
        "        for tag in tags:\n            self.released(tag)\n",
        "",
        ("unit/router/test_placement.py::test_a_lost_workers_requests_go_to_another",),
    ),
    Mutation(
        "who waits for any worker is not given to those that are left",
        "router/placement.py",
        "        self._loop.call_soon(self.place_held)\n",
        "",
        ("unit/router/test_workers.py",),
    ),
    Mutation(
        "connections that a worker gives back before it ends are lost",
        "router/worker_channel.py",
        "self._workers.loop.call_soon(self.read_all)",
        'self._workers.loop.call_soon(self.lose, "")',
        ("unit/router/test_worker_channel.py",),
    ),
    Mutation(
        "a connection that could not be sent is closed, and not placed again",
        "router/worker_channel.py",
        "            if not self._send(data, [connection.sock.fileno()]):\n"
        "                return False\n",
        "            self._send(data, [connection.sock.fileno()])\n",
        ("unit/router/test_worker_channel.py",),
    ),
    Mutation(
        "ETOOMANYREFS or ENOBUFS ends the channel to a worker",
        "router/worker_channel.py",
        "            if error.errno in channel.CROWDED:\n                self._block",
        "            if False:\n                self._block",
        ("unit/router/test_worker_channel.py",),
    ),
    Mutation(
        "a worker whose channel was full gets nothing more",
        "router/worker_channel.py",
        "            self.member.busy = False\n",
        "",
        ("unit/router/test_worker_channel.py",),
    ),
    Mutation(
        "requests that waited for a full channel are not sent when there is room",
        "router/worker_channel.py",
        "            self._workers.placement.resume(self.member)\n",
        "",
        ("unit/router/test_worker_channel.py",),
    ),
    Mutation(
        "what a worker is told while its channel is full is lost",
        "router/worker_channel.py",
        "        self._blocked = False\n        self.flush()\n",
        "        self._blocked = False\n        self._outbox.clear()\n        self.flush()\n",
        ("unit/router/test_worker_channel.py",),
    ),
    Mutation(
        "a connection comes to a worker behind the word that none comes any more",
        "router/worker_channel.py",
        "        self._workers.placement.leave(self.member, self)\n"
        "        self.member.channels = []",
        "        self.member.channels = []",
        ("unit/router/test_worker_channel.py",),
    ),
    Mutation(
        "a worker that drains does not know whether all of supervisord stops",
        "router/worker_channel.py",
        '        self._tell_if_all_stop()\n        self.tell({"type": "drains"})',
        '        self.tell({"type": "drains"})',
        ("unit/router/test_worker_channel.py",),
    ),
    Mutation(
        "one bad connection keeps all others from a worker",
        "router/worker_channel.py",
        "        except Exception as error:\n            # One bad connection",
        "        except ArithmeticError as error:\n            # One bad connection",
        ("unit/router/test_worker_channel.py",),
    ),
    Mutation(
        "the descriptor of a bad packet stays open",
        "router/worker_channel.py",
        "        if len(descriptors) != 1 or self.member is None:\n"
        "            channel.close_all(descriptors)\n",
        "        if len(descriptors) != 1 or self.member is None:\n",
        ("unit/router/test_worker_channel.py",),
    ),
    Mutation(
        "what a worker has forked keeps its channel, and its clients, alive",
        "router/worker_channel.py",
        '            self.read_all()\n            self.lose("")\n        elif',
        "            self.read_all()\n        elif",
        ("unit/router/test_worker_channel.py",),
    ),
    # --- workers, as the router sees them
    Mutation(
        "two connections of one worker are two workers",
        "router/workers.py",
        '            other.lose("it has connected again")\n',
        "            pass\n",
        ("unit/router/test_workers.py",),
    ),
    Mutation(
        "a stranger takes the tag, and the sessions, of a worker",
        "router/workers.py",
        "            if other.pid != newcomer.pid:\n",
        "            if False:\n",
        ("unit/router/test_workers.py",),
    ),
    Mutation(
        "a worker that hangs gets new sessions",
        "router/silence.py",
        "                member.hangs(silent)\n",
        "",
        ("unit/router/test_silence.py",),
    ),
    Mutation(
        "a worker that hung gets no new sessions any more",
        "router/workers.py",
        "            member.is_back()\n",
        "",
        ("unit/router/test_workers.py",),
    ),
    Mutation(
        "workers are told that those are gone that are not back yet at a new router",
        "router/workers.py",
        "        if not self._settled:\n            return\n",
        "",
        ("unit/router/test_workers.py",),
    ),
    Mutation(
        "figures of a worker that has ended are missing in the sums",
        "router/workers.py",
        "        add_gone(self.gone, member)\n",
        "",
        ("unit/router/test_workers.py",),
    ),
    Mutation(
        "a router that has no descriptor for a worker never looks again",
        "router/workers.py",
        "                self.loop.call_later(_PAUSE, self.loop.add_reader,"
        " self._listener, self._accept)\n",
        "",
        ("unit/router/test_workers.py",),
    ),
    # --- the router process
    Mutation(
        "a relay that has stopped goes unnoticed",
        "router/process.py",
        "        if not self._relay.alive:\n",
        "        if False:\n",
        ("unit/router/test_process.py",),
    ),
    Mutation(
        "a relay whose thread has ended counts as alive",
        "relay/proxy.py",
        "        return self._thread.is_alive()\n",
        "        return True\n",
        ("unit/relay/test_proxy.py",),
    ),
    Mutation(
        "a router that somebody kills is not started again",
        "router/process.py",
        "        self._stop(0 if self._stop_wanted else 128 + number)\n",
        "        self._stop(0)\n",
        ("unit/router/test_process.py",),
    ),
    Mutation(
        "who waits for a worker is lost when the router restarts",
        "router/process.py",
        "            self._shelf.keep([*self._placement.release(), *self._entrance.release()])\n",
        "",
        ("unit/router/test_process.py",),
    ),
    Mutation(
        "a request in pieces is lost when the router restarts",
        "router/process.py",
        "[*self._placement.release(), *self._entrance.release()]",
        "[*self._placement.release()]",
        ("unit/router/test_process.py",),
    ),
    Mutation(
        "clients of a router that stops for good get no answer",
        "router/process.py",
        "            self._placement.close()\n",
        "            pass\n",
        ("unit/router/test_process.py",),
    ),
    Mutation(
        "a worker that the operator drains gets new sessions after a restart of the router",
        "router/workers.py",
        "        member.drained = self.drained(name, newcomer.pid)\n",
        "",
        ("unit/router/test_process.py",),
    ),
    Mutation(
        "a worker that supervisord stops gets new sessions until its signal comes",
        "router/process.py",
        "        else:\n            self._workers.stopping(pid)\n",
        "",
        ("unit/router/test_process.py",),
    ),
    # --- who comes in
    Mutation(
        "the share of an address counts the proxy, and not the client that it names",
        "router/entrance.py",
        "        self._forget(connection)  # the header changes the address under which it is "
        "counted\n",
        "",
        ("unit/router/test_entrance.py",),
    ),
    Mutation(
        "addresses of one /64 have a share each",
        "router/connection.py",
        "packed[:8] + bytes(8)",
        "packed",
        ("unit/router/test_entrance.py",),
    ),
    Mutation(
        "a handshake of TLS counts for no address",
        "router/entrance.py",
        "        self._count(connection)\n        self._handshakes += 1\n",
        "        self._handshakes += 1\n",
        ("unit/router/test_entrance.py",),
    ),
    # --- TLS
    Mutation(
        "a client that does not read keeps its descriptors for ever",
        "router/tls.py",
        "        if self._moved or _queued(self._sink) < self._queued:\n",
        "        if True:\n",
        ("unit/router/test_tls.py::test_who_does_not_read_is_given_up",),
    ),
    Mutation(
        "a client that reads slowly is cut off",
        "router/tls.py",
        "        if self._moved or _queued(self._sink) < self._queued:\n",
        "        if False:\n",
        ("unit/router/test_tls.py::test_who_reads_slowly_and_steadily_gets_all",),
    ),
    Mutation(
        "the last words of a worker are lost in TLS",
        "router/tls.py",
        "        self._detach()\n        # Closing with unread",
        "        self.close()\n        # Closing with unread",
        ("unit/router/test_tls.py",),
    ),
    Mutation(
        "a handshake of TLS that does not end stays",
        "router/tls.py",
        "loop.call_later(timeout, self._fail)",
        "loop.call_later(1e6, self._fail)",
        ("unit/router/test_tls.py",),
    ),
    Mutation(
        "what the one side has not taken yet is overwritten",
        "router/tls.py",
        "            if self._pump.closed or self._waiting:\n",
        "            if self._pump.closed:\n",
        ("unit/router/test_tls.py",),
    ),
    # --- the worker's channel to the router
    Mutation(
        "a worker that drains gets new sessions from the next router",
        "worker/link.py",
        '        if self._draining:\n            self.post({"type": "draining"})\n',
        "",
        ("unit/worker/test_link.py",),
    ),
    Mutation(
        "messages for one router are sent to the next",
        "worker/link.py",
        "        self._outgoing.forget_messages()\n",
        "",
        ("unit/worker/test_link.py",),
    ),
    Mutation(
        "connections of a worker that drains are lost with the router",
        "worker/link.py",
        "        if self._draining:\n            self._outgoing.keep_all()\n",
        "",
        ("unit/worker/test_link.py",),
    ),
    Mutation(
        "ETOOMANYREFS or ENOBUFS ends a worker's channel",
        "worker/outgoing.py",
        "                raise Blocked from None\n",
        "                raise RouterGone from None\n",
        ("unit/worker/test_outgoing.py",),
    ),
    Mutation(
        "a worker that the router refuses tries it for ever",
        "worker/link.py",
        "            self.close()\n            self._on_refused",
        "            self._on_refused",
        ("unit/worker/test_link.py",),
    ),
    Mutation(
        "the last figures of a worker are missing in the sums",
        "worker/link.py",
        "            self._reporting.report()  # include",
        "            pass  # include",
        ("unit/worker/test_link.py",),
    ),
    Mutation(
        "a worker without supervisord serves on",
        "worker/ancestors.py",
        "        self._gone = True\n",
        "",
        ("unit/worker/test_link.py",),
    ),
    Mutation(
        "a worker of the wrong version takes connections",
        "worker/link.py",
        '        channel.check_version(message, "the router")\n',
        "",
        ("unit/worker/test_link.py",),
    ),
    Mutation(
        "a forked child answers on the channel of its parent",
        "worker/link.py",
        "            close_socket(sock)\n",
        "            sock.shutdown(socket.SHUT_RDWR)\n",
        ("unit/worker/test_link.py",),
    ),
    # --- a worker's life
    Mutation(
        "a worker of a cluster serves an application whose clients it cannot share",
        "worker/service.py",
        "            check_manager(app, spec)\n",
        "",
        ("unit/worker/test_service.py",),
    ),
    Mutation(
        "supervisord does not start a worker again that could not begin",
        "worker/service.py",
        "        raise SystemExit(1) from None\n",
        "        raise SystemExit(0) from None\n",
        ("unit/worker/test_service.py",),
    ),
    Mutation(
        "a worker under a supervisord without the section opens a port of its own",
        "worker/service.py",
        'if run_dir is None and "SUPERVISOR_ENABLED" in os.environ:',
        "if False:",
        ("unit/worker/test_service.py",),
    ),
    Mutation(
        "a descriptor number that is used again closes a stranger's connection",
        "worker/eventlet/runtime.py",
        "    def descriptor_opened(self, descriptor: int) -> None:\n"
        "        hubs.notify_opened(descriptor)\n",
        "    def descriptor_opened(self, descriptor: int) -> None:\n        pass\n",
        ("unit/worker/eventlet/test_runtime.py", "unit/worker/eventlet/test_sessions.py"),
    ),
    # --- the relay
    Mutation(
        "one message that fails is the last that a process hears",
        "relay/subscriber.py",
        "            except Exception as error:\n                # Whatever failed",
        "            except ArithmeticError as error:\n                # Whatever failed",
        ("unit/relay/test_subscriber.py",),
    ),
    Mutation(
        "a worker that hears nothing any more goes on serving",
        "relay/subscriber.py",
        "                if self._failures > RELAY_MOST_FAILURES:\n",
        "                if False:\n",
        ("unit/relay/test_subscriber.py",),
    ),
    Mutation(
        "a client that takes what it missed slower than it comes is cut off",
        "relay/subscriber.py",
        "        while self._behind() and time.monotonic() < until:\n",
        "        while False:\n",
        ("unit/relay/test_looped.py",),
    ),
    Mutation(
        "a worker that was stopped misses the end of what was sent meanwhile",
        "relay/subscriber.py",
        "                    self._note_stall(now - last)\n",
        "                    pass\n",
        ("unit/relay/test_subscriber.py",),
    ),
    Mutation(
        "a flood of messages keeps a worker from its clients",
        "relay/subscriber.py",
        "                yield _TURN  # a flood",
        "                pass  # a flood",
        ("unit/relay/test_looped.py",),
    ),
    unlocked(
        "messages of two threads leave in another order than that of their numbers",
        "relay/publisher.py",
        "_lock",
        "            now = time.monotonic()\n            if tag is not None",
        "unit/relay/test_publisher.py",
    ),
    Mutation(
        "threads that emit for the first time at once have a publisher each",
        "cluster/relaying.py",
        "        self._joining = native.lock()\n",
        '        self._joining = type("", (), {"acquire": lambda *_, **__: True,'
        ' "release": lambda _: None})()\n',
        ("unit/cluster/test_relaying.py",),
    ),
    Mutation(
        "threads that change rooms at the same time damage their tables",
        "cluster/rooms.py",
        "        self._tables = Tables()\n",
        '        self._tables = __import__("contextlib").nullcontext()\n',
        ("unit/cluster/test_threads.py::test_threads_change_rooms_at_the_same_time",),
    ),
    unlocked(
        "more handlers run at a time than --threads allows",
        "worker/threads/pool.py",
        "_lock",
        "            self._submitted += 1\n",
        "unit/worker/threads/test_pool.py",
    ),
    Mutation(
        "what a child of multiprocessing has emitted last is lost at its end",
        "cluster/relaying.py",
        "        Finalize(None, self.finish, exitpriority=10)\n",
        "",
        ("unit/cluster/test_relaying.py",),
    ),
    Mutation(
        "a forked child emits under the tag of its parent",
        "common/identity.py",
        "    return _tag_of_process(os.getpid())\n",
        "    return _tag_of_process(0)\n",
        ("unit/common/test_identity.py",),
    ),
    Mutation(
        "a forked child emits through the socket of its parent",
        "cluster/core.py",
        "        self._publisher = self._subscriber = None\n",
        "",
        ("unit/cluster/test_manager.py", "unit/cluster/test_async_manager.py"),
    ),
    # --- locks
    unlocked(
        "calls of a handler that end in two threads at the same time count as one",
        "worker/event_figures.py",
        "_lock",
        "            self._row.count += 1\n",
        "unit/worker/test_event_figures.py",
    ),
    unlocked(
        "calls of a handler are reported without their time",
        "worker/event_figures.py",
        "_lock",
        "            rows = [",
        "unit/worker/test_event_figures.py",
    ),
    unlocked(
        "events have more rows than the limit allows",
        "worker/event_figures.py",
        "_lock",
        "            row = self._rows.get((namespace, event))\n",
        "unit/worker/test_event_figures.py",
    ),
    unlocked(
        "what one of two threads stores for a client is lost",
        "worker/eio.py",
        "_making",
        "                if session.data is None:\n",
        "unit/worker/test_handlers.py"
        "::test_threads_that_look_for_a_clients_data_first_get_the_same",
    ),
    unlocked(
        "a call of another thread is never run in the loop",
        "worker/loop_thread.py",
        "_lock",
        "            if len(self._calls) >= THREAD_CALLS",
        "unit/worker/test_loop_thread.py"
        "::test_a_call_that_is_added_when_the_last_one_has_run_is_not_forgotten",
    ),
    unlocked(
        "calls of other threads fail in the loop",
        "worker/loop_thread.py",
        "_lock",
        "            calls = list(",
        "unit/worker/test_loop_thread.py::test_a_call_that_is_added_while_others_are_read",
    ),
    unlocked(
        "a call that is added at the end of the others is never run in the loop",
        "worker/loop_thread.py",
        "_lock",
        "                for size, _, _ in calls[:done]:\n",
        "unit/worker/test_loop_thread.py"
        "::test_a_call_that_is_added_when_the_last_one_has_run_is_not_forgotten",
    ),
    Mutation(
        "what a killed sender had sent while nobody received for held sessions is not missing",
        "relay/inbox.py",
        "sender.ended = sender.reached = name in complete",
        "sender.ended = sender.reached = True",
        ("unit/relay/test_inbox.py",),
    ),
    Mutation(
        "inherited clients cannot recover if their worker was killed before it had sent its last",
        "relay/inbox.py",
        "return [self.next, max(self.next - 1, self.sent, *self.held) if ended else self.last]",
        "return [self.next, self.last]",
        ("unit/relay/test_inbox.py",),
    ),
    Mutation(
        "adopted clients lack what a sender that has ended had sent to others, and nobody notices",
        "relay/inbox.py",
        "                elif theirs.has_ended(name):\n",
        "                elif False:\n",
        ("unit/relay/test_inbox.py",),
    ),
    Mutation(
        "adopted clients wait ten seconds for messages that they get directly",
        "relay/inbox.py",
        "                if name == own:\n                    continue\n",
        "",
        ("unit/relay/test_inbox.py",),
    ),
    Mutation(
        "adopted clients are merged before it is known which senders have ended",
        "relay/hearing.py",
        "if main is None or self._ask_everybody or self._missed_ends:",
        "if main is None or self._ask_everybody:",
        ("unit/relay/test_subscriber.py",),
    ),
    Mutation(
        "inherited clients lack what their heir had emitted when it is killed, too",
        "router/stand_ins.py",
        "        reader.add_own(part)\n",
        "        pass\n",
        ("unit/router/test_stand_ins.py",),
    ),
    Mutation(
        "inherited clients lack what their heir had emitted to them alone when it is killed",
        "cluster/keeping.py",
        "        elif stream is not OWN and self._leaves_out_adopted(message):\n",
        "        elif False:\n",
        ("unit/cluster/test_recovery_killed.py",),
    ),
    Mutation(
        "events of an heir come twice when it is killed while it gives its own to inherited ones",
        "relay/journal_reader.py",
        "if only_adopted or isinstance(event.stream, Own):",
        "if isinstance(event.stream, Own):",
        ("unit/relay/test_journal.py",),
    ),
    *(
        unlocked(
            f"two threads use the router's socket for answers at the same time: {what}",
            "relay/registrar.py",
            "_lock",
            then,
            "unit/relay/test_registrar.py",
        )
        for what, then in (
            ("an end", "            ends.append("),
            ("its close", "            self._publisher.close()\n"),
            ("who receives", '                self._send(topic, _SENDER, {"method": "receivers"'),
            ("who is there", '                self._send(topic, _SENDER, {"method": method'),
            ("who has ended", "                for of_channel, sender, fields in ("),
        )
    ),
    *(
        unlocked(what, "bridge/stream.py", "_lock", then, "unit/bridge/test_stream.py")
        for what, then in (
            (
                "two messages for other hosts have the same number",
                "            if not self._is_new(origin):\n                return True\n",
            ),
            (
                "a message for other hosts is marked as given to Redis before it is kept",
                "            for file in (self._old, self._current):\n"
                "                at = file.index_after(self.given)\n",
            ),
            (
                "messages that Redis refuses are not counted as waiting",
                "            for file in (self._current, self._old):\n",
            ),
            (
                "another host learns that a message is lost while it is added",
                "            for file in (self._old, self._current):\n"
                "                at = file.index_after(first - 1)\n",
            ),
            (
                "a message that is not for other hosts is read again by the next router",
                "            if self._is_new(origin):\n",
            ),
            (
                "what workers have of other hosts' messages is not saved",
                "            for bridge, number in passed.items():\n",
            ),
            (
                "what is noted while the bridge's state is saved is not saved",
                "            if self._changed:\n",
            ),
            (
                "a message for other hosts does not count as waiting while it is added",
                "            return self._waiting\n",
            ),
            (
                "the bridge's position lacks a message that is in its stream",
                "            senders = {\n",
            ),
        )
    ),
    *(
        unlocked(
            what, "bridge/bridge.py", "_lock", then, f"unit/bridge/test_bridge.py::test_{test}"
        )
        for what, then, test in (
            (
                "the workers of a host that is gone count as present",
                "            stalled, self._looked_at",
                "a_host_that_is_gone_is_not_told_as_there",
            ),
            (
                "a message of another host is lost if a worker answers at that moment",
                "            self._passed[tag] = numbers\n",
                "a_worker_says_what_it_has_while_a_bridge_begins",
            ),
            (
                "what all workers have is not noted if a worker answers at that moment",
                "            here = self._tags_here\n",
                "a_worker_says_what_it_has_while_that_of_all_is_noted",
            ),
            (
                "workers note the number of another host's message before they have it",
                "            told, self._told",
                "the_workers_have_a_message_before_they_are_told_its_number",
            ),
            (
                "messages of another host overtake those that waited for the bridge to begin",
                "            self._resumed = True\n",
                "what_arrives_while_earlier_messages_are_passed_on_comes_after_them",
            ),
            (
                "another host's message is still on its way when the workers are told its number",
                '                if data["method"] in',
                "the_workers_have_a_message_before_they_are_told_its_number",
            ),
        )
    ),
    Mutation(
        "long messages fill Redis until it disconnects the other hosts",
        "bridge/queue.py",
        "        if self._bytes_on_their_way >= BRIDGE_MOST_ON_THEIR_WAY_BYTES:\n",
        "        if False:\n",
        ("unit/bridge/test_queue.py::test_so_many_bytes_are_on_their_way_as_may_be",),
    ),
    Mutation(
        "anybody who publishes a number makes a host send all that waits at once",
        "bridge/queue.py",
        "min(number, self._stream.given)",
        "number",
        ("unit/bridge/test_queue.py::test_a_number_that_was_never_used_does_not_come_back",),
    ),
    Mutation(
        "after a quick failover hosts send to a server at which nobody listens",
        "bridge/queue.py",
        "        reached_nobody = self._reached_nobody(results, len(numbered), connection)\n",
        "        reached_nobody = False\n",
        (
            "unit/bridge/test_queue.py"
            "::test_messages_to_another_server_than_the_subscribed_one_are_sent_again",
        ),
    ),
    Mutation(
        "a host decodes each of its own messages",
        "bridge/bridge.py",
        "        own = number_after(self._head, raw)\n",
        "        own = None\n",
        ("unit/bridge/test_bridge.py::test_its_own_messages_are_not_decoded",),
    ),
    Mutation(
        "a host that reads many messages sends each of them to its workers singly",
        "bridge/bridge.py",
        "        self._publisher.turn = self._turn.call_soon\n",
        "",
        ("unit/bridge/test_bridge.py",),
    ),
    unlocked(
        "more messages without numbers wait for Redis than the limit allows",
        "bridge/queue.py",
        "_changed",
        "            count = min(_BATCH, len(self._unnumbered))\n",
        "unit/bridge/test_queue.py::test_what_comes_while_a_batch_is_published_is_counted",
    ),
    unlocked(
        "each thread that looks for missed events reads all events itself",
        "relay/journal_index.py",
        "_lock",
        "            rows, read = self._rows\n",
        "unit/relay/test_journal_index.py"
        "::test_two_threads_that_look_at_the_same_time_read_each_event_once",
    ),
    Mutation(
        "many requests for metrics keep the router busy",
        "router/exporter.py",
        "        async with self._turn:\n",
        "        if True:\n",
        ("unit/router/test_exporter.py::test_one_page_is_made_at_a_time",),
    ),
    *(
        unlocked(
            what,
            "relay/journal.py",
            "_lock",
            then,
            "unit/relay/test_journal.py::test_one_thread_uses_it_at_a_time",
        )
        for what, then in (
            (
                "two threads write their events to the same place of the journal",
                "            if self._append(record, now)",
            ),
            (
                "a client that comes back misses an event that is just written",
                "            if not 0 <= k <= self.last:\n",
            ),
            (
                "the segment to which a client's state is written is dropped by another thread",
                "            if not self._append_state(pid, record):\n",
            ),
        )
    ),
    Mutation(
        "a forked child cannot emit if a thread of its parent was about to emit",
        "cluster/core.py",
        "        self._joining = native.lock()  # another",
        "        pass  # another",
        ("unit/cluster/test_manager.py::test_the_child_of_a_fork_has_nothing_of_its_parent",),
    ),
)


def mutate(mutation: Mutation, root: Path) -> str:
    """The text of the file, mutated.

    :raises ValueError: when the list does not fit the code any more.
    """
    text = (root / "supervisor_sio" / mutation.file).read_text()
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.file} has {mutation.old!r} {text.count(mutation.old)} times")
    return text.replace(mutation.old, mutation.new)


def write(path: Path, text: str) -> None:
    """Also where what was compiled of it a moment ago has the same size and time."""
    path.write_text(text)
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()


def run(root: Path, tests: tuple[str, ...]) -> tuple[bool, str]:
    """Whether these tests pass; and what pytest said last.

    :raises RuntimeError: when there are none.
    """
    variables = {**os.environ, "PYTHONPATH": str(root), "FEW_EXAMPLES": "1"}
    # Python 3.11 fails to parse the source again below a deep stack, which a traceback needs.
    options = ["-q", "-x", "-n0", "--tb=native", "-p", "no:cacheprovider", "-m", "not long"]
    paths = [f"tests/{test}" for test in tests]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *paths],
            cwd=root,
            env=variables,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"not within {TIMEOUT} s"
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{paths}: {done.stdout}{done.stderr}")
    failed = [
        line
        for line in done.stdout.splitlines()
        if line.startswith(("FAILED tests", "ERROR tests"))
    ]
    return not done.returncode, failed[0].partition("::")[2].partition(" - ")[0] if failed else "?"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", help="of the names or files of some mutations")
    words = parser.parse_args().words
    chosen = [one for one in MUTATIONS if not words or any(w in one.what + one.file for w in words)]
    with tempfile.TemporaryDirectory() as directory:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(os.cpu_count() or 1):
            copy = Path(directory, str(number))
            for name in ("supervisor_sio", "tests", "docs", "conf.d"):
                ignored = shutil.ignore_patterns("__pycache__", "node_modules", "*.sock")
                shutil.copytree(ROOT / name, copy / name, ignore=ignored)
            for name in ("setup.cfg", "README.md"):
                shutil.copy(ROOT / name, copy / name)
            copies.put(copy)

        def trial(mutation: Mutation) -> tuple[bool, str, float]:
            began = time.monotonic()
            copy = copies.get()
            path = copy / "supervisor_sio" / mutation.file
            original = path.read_text()
            try:
                write(path, mutate(mutation, copy))
                return (*run(copy, mutation.tests), time.monotonic() - began)
            finally:
                write(path, original)
                copies.put(copy)

        with ThreadPoolExecutor(copies.qsize()) as pool:
            everything = tuple(dict.fromkeys(test for one in chosen for test in one.tests))
            sound, what = pool.submit(run, Path(directory, "0"), everything).result()
            if not sound:
                print(f"without a mutation {what} fails")
                return 2
            survivors = 0
            for mutation, (passed, failed, seconds) in zip(chosen, pool.map(trial, chosen)):
                survivors += passed
                noticed = "SURVIVES" if passed else failed
                print(f"{seconds:5.1f} s  {mutation.what} ({mutation.file}): {noticed}", flush=True)
    print(f"{len(chosen)} mutations, {survivors} survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main())
