from __future__ import annotations

import xmlrpc.client
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.deferred import in_ascii


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
