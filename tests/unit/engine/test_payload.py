from __future__ import annotations

import json
import re
from typing import Optional
from urllib.parse import quote, unquote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from supervisor_sio.common.limits import UNQUOTED_AT_ONCE
from supervisor_sio.engine.payload import Packet, PayloadError, as_script, decode, encode
from supervisor_sio.engine.payload import _unquote as unquote_in_parts

packets = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.text(st.characters(exclude_characters="\x1e", exclude_categories=["Cs"])).map(
            lambda text: "4" + text
        ),
    ),
    min_size=1,
)


def form(text: str) -> bytes:
    """A payload as the form of JSONP sends it."""
    return b"d=" + quote(text.replace("\\n", "\\\\n").replace("\n", "\\n"), safe="").encode()


def without_turns(body: bytes) -> list[Optional[Packet]]:
    return [packet for packet in decode(body) if packet is not None]


@given(packets)
def test_what_was_encoded_is_decoded(sent: list[Packet]) -> None:
    assert list(decode(encode(sent).encode())) == sent


@given(packets)
def test_a_form_too(sent: list[Packet]) -> None:
    # A backslash before a line end looks like one that was doubled, with Node as well.
    assume("\\\n" not in encode(sent))
    assert without_turns(form(encode(sent))) == sent


def test_how_it_looks() -> None:
    assert encode(["4hello", b"\x01\x02\x03\x04", "2"]) == "4hello\x1ebAQIDBA==\x1e2"
    assert encode([]) == ""


def test_an_empty_body_has_no_packet() -> None:
    assert list(decode(b"")) == []
    assert list(decode(b"d=")) == []


def test_a_separator_alone_is_between_two_empty_packets() -> None:
    assert list(decode(b"\x1e")) == ["", ""]


def test_a_form_ends_at_its_first_field() -> None:
    assert without_turns(b"d=4a&x=4b") == ["4a"]


def test_a_script_calls_the_function_of_the_client() -> None:
    text = encode(['4"\\\n</script>'])
    script = as_script(text, 7)
    assert script.startswith("___eio[7](") and script.endswith(");")
    assert json.loads(script[len("___eio[7](") : -2]) == text


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"4\xff", "not UTF-8"), (b"4a\x1eb$$$A", "not base64"), (b"bA", "not base64")],
)
def test_what_is_no_payload(body: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        list(decode(body))


def test_packets_before_the_fault_are_there() -> None:
    rest = decode(b"4a\x1ebA")
    assert next(rest) == "4a"
    with pytest.raises(PayloadError):
        next(rest)


def test_a_long_form_leaves_turns_to_others() -> None:
    found = list(decode(b"d=4" + b"%61" * UNQUOTED_AT_ONCE))
    assert found == [None] * 3 + ["4" + "a" * UNQUOTED_AT_ONCE]


@given(st.text(alphabet="a+%é\u20ac&=1x", max_size=30).map(quote), st.integers(3, 9))
def test_a_form_is_unquoted_the_same_in_parts(text: str, size: int) -> None:
    assert "".join(unquote_in_parts(text.encode(), size)) == unquote_plus(text)


def test_what_ends_in_the_middle_of_a_character() -> None:
    assert "".join(unquote_in_parts(b"a%E2%82", 3)) == "a\ufffd"


@pytest.mark.parametrize("text", ["4a\nb", r"4a\nb"])
def test_line_ends_in_a_form(text: str) -> None:
    assert without_turns(form(text)) == [text]


@given(text=st.lists(st.sampled_from(["\\", "n", "\n", "x"]), max_size=12).map("".join))
def test_line_ends_of_a_form_in_any_order(text: str) -> None:
    expected = re.sub(r"\\?\\n", lambda m: "\n" if len(m[0]) == 2 else r"\n", text)
    body = b"d=" + quote("4" + text).encode()
    assert [packet for packet in decode(body) if packet is not None] == ["4" + expected]
