from __future__ import annotations

import xmlrpc.client
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from supervisor.xmlrpc import Faults, xmlrpc_marshal

from supervisor_sio.supervisord.deferred import Rows, fault, in_ascii, written


def received(value: Any) -> Any:
    """What a client gets of it."""
    body = xmlrpc.client.dumps((in_ascii(value),), methodresponse=True)
    assert body.isascii()
    return xmlrpc.client.loads(body)[0][0]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cn"])))
def test_text_comes_as_it_is(text: str) -> None:
    assert received({"rooms": [{"room": text, "sockets": 3}]}) == {
        "rooms": [{"room": text, "sockets": 3}]
    }


def test_what_xml_cannot_say_is_replaced() -> None:
    assert received(["a\x1b[31m\x00", "\ud800", "<&>\r\n\t]]>", "plain"]) == [
        "a\ufffd[31m\ufffd",
        "\ufffd",
        "<&>\r\n\t]]>",
        "plain",
    ]


@given(
    st.lists(
        st.recursive(
            st.integers(-(2**31), 2**31 - 1)
            | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cn"])),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abc"), inner),
            max_leaves=8,
        )
    )
)
def test_rows_written_in_advance_are_the_same(rows: list[Any]) -> None:
    assert received({"rows": Rows([written(row) for row in rows]), "total": 3}) == {
        "rows": rows,
        "total": 3,
    }


@pytest.mark.parametrize("name", ["plain", "wörker:wörker_01", "<工>\x1b"])
def test_a_fault_says_the_whole_name(name: str) -> None:
    error = fault(Faults.STILL_RUNNING, f"{name} is still running")
    body = xmlrpc_marshal(xmlrpc.client.Fault(error.code, error.text))
    assert body.isascii()
    with pytest.raises(xmlrpc.client.Fault) as caught:
        xmlrpc.client.loads(body)
    shown = name.replace("\x1b", "\ufffd")
    assert caught.value.faultCode == Faults.STILL_RUNNING
    assert caught.value.faultString == f"STILL_RUNNING: {shown} is still running"
