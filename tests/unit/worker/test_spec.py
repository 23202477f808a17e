from __future__ import annotations

import pytest

from supervisor_sio.worker.spec import Call, Spec, parse_spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("chat:app", Spec("chat", "app")),
        ("shop.chat:site.app", Spec("shop.chat", "site.app")),
        ("chat:make()", Spec("chat", "make", Call())),
        ('chat:make("production")', Spec("chat", "make", Call(["production"]))),
        (
            "chat:Site.make('a:b', -1, debug=False, hosts=[\"x\", None])",
            Spec("chat", "Site.make", Call(["a:b", -1], {"debug": False, "hosts": ["x", None]})),
        ),
    ],
)
def test_what_names_an_application(text: str, spec: Spec) -> None:
    assert parse_spec(text) == spec


@pytest.mark.parametrize("text", ["", "chat", "chat:", ":app", "chat:()"])
def test_what_does_not(text: str) -> None:
    with pytest.raises(ValueError, match="is not module:app, for example chat:app"):
        parse_spec(text)


@pytest.mark.parametrize(
    "call",
    [
        *(
            "(",
            "(production)",
            "(open('x'))",
            "(*[1])",
            "(**{'a': 1})",
            "()()",
            "().app",
            "(1)+f(2)",
        ),
        *('("a', "(" * 500, "(a=1, a=2)", "(\0)", '("a") or f("b")'),
    ],
)
def test_a_factory_is_called_with_what_it_says_and_nothing_is_run(call: str) -> None:
    with pytest.raises(ValueError, match="a factory's arguments must be literals"):
        parse_spec(f"chat:make{call}")
