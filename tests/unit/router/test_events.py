from __future__ import annotations

import contextlib
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from supervisor.compat import as_bytes
from supervisor.process import EventListenerPool

from supervisor_sio.router.events import READY, RESULT_OK, Event, EventReader

word = st.text(
    st.characters(codec="utf-8", exclude_categories=["Z", "C"], exclude_characters=":"), min_size=1
)
texts = st.text(st.characters(codec="utf-8"), max_size=40)
bodies = st.one_of(st.just(""), texts.map(lambda text: "\n" + text))
events = st.tuples(word, st.dictionaries(word, word, max_size=3), bodies)


def packed(
    name: str, values: dict[str, str], body: str = "", identifier: str = "supervisor"
) -> bytes:
    """An event as supervisord writes it."""
    options = SimpleNamespace(identifier=identifier)
    pool = SimpleNamespace(config=SimpleNamespace(name="sio", options=options))
    payload = " ".join(f"{key}:{value}" for key, value in values.items()) + body
    with mock.patch("supervisor.events.getEventNameByType", lambda _: name):
        envelope = EventListenerPool._eventEnvelope(pool, None, 21, 10, payload)
    return as_bytes(envelope)


def test_what_supervisord_sends() -> None:
    data = (
        b"ver:3.0 server:supervisor serial:21 pool:listener poolserial:10 "
        b"eventname:PROCESS_STATE_STOPPING len:64\n"
        b"processname:cat_00 groupname:cat from_state:STARTING pid:27667 \n"
    )
    values = {"processname": "cat_00", "groupname": "cat", "from_state": "STARTING", "pid": "27667"}
    assert list(EventReader().feed(data)) == [Event("PROCESS_STATE_STOPPING", values)]


@given(st.lists(events, max_size=4), st.lists(st.integers(0, 400), max_size=10))
def test_no_segmentation_changes_the_events(
    sent: list[tuple[str, dict[str, str], str]], cuts: list[int]
) -> None:
    data = b"".join(packed(*event) for event in sent)
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reader = EventReader()
    received = [
        event for start, end in zip(bounds, bounds[1:]) for event in reader.feed(data[start:end])
    ]
    assert received == [Event(name, values) for name, values, _ in sent]


def test_an_event_is_there_with_its_last_byte() -> None:
    data = packed("PROCESS_STATE_EXITED", {"processname": "ü"}, "\nmore")
    reader = EventReader()
    for position in range(len(data) - 1):
        assert list(reader.feed(data[position : position + 1])) == []
    assert list(reader.feed(data[-1:])) == [Event("PROCESS_STATE_EXITED", {"processname": "ü"})]


def test_only_the_first_line_of_a_payload_has_values() -> None:
    data = packed("PROCESS_LOG_STDOUT", {"processname": "a"}, "\nprocessname:b pid:1\n")
    assert list(EventReader().feed(data)) == [Event("PROCESS_LOG_STDOUT", {"processname": "a"})]


@pytest.mark.parametrize("identifier", ["my host:1", "web:1 len:7", "wörker"])
def test_any_identifier(identifier: str) -> None:
    sent = packed("TICK_5", {"when": "1"}, identifier=identifier)
    assert list(EventReader().feed(sent * 2)) == [Event("TICK_5", {"when": "1"})] * 2


def test_an_empty_payload() -> None:
    assert list(EventReader().feed(packed("TICK_5", {}))) == [Event("TICK_5", {})]


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1",
        b"",
        b"eventname:X",
        b"len:5",
        b"eventname:X len:five",
        b"eventname:X len:5 a:b:c",
        b"ver:3.0 eventname:X len:" + b"9" * 5000,
        b"\xff\xfe",
    ],
)
def test_not_from_supervisord(line: bytes) -> None:
    with pytest.raises(ValueError, match="not an event header: '"):
        list(EventReader().feed(line + b"\n12345"))


def test_a_long_line_is_not_repeated_in_full() -> None:
    with pytest.raises(ValueError) as caught:
        list(EventReader().feed(b"x" * 100_000 + b"\n"))
    assert len(str(caught.value)) < 200


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_no_bytes_raise_anything_else(chunks: list[bytes]) -> None:
    reader = EventReader()
    with contextlib.suppress(ValueError):
        for chunk in chunks:
            list(reader.feed(chunk))


def test_the_answers_of_the_protocol() -> None:
    assert READY == b"READY\n"
    head, _, body = RESULT_OK.partition(b"\n")
    assert head == b"RESULT %d" % len(body) and body == b"OK"
