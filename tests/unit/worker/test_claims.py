"""Questions between workers about returning clients."""

from __future__ import annotations

import os
from typing import Any, Callable, Sequence

import pytest

from supervisor_sio.common import memory_file, recovery
from supervisor_sio.common.channel import ChannelError, Message, close_all
from supervisor_sio.common.limits import CLAIM_TIMEOUT, CLAIMS_AT_ONCE
from supervisor_sio.common.reasons import NO_OWNER, NOT_KEPT
from supervisor_sio.worker import claims as module
from supervisor_sio.worker.claims import Claims, Said, no_answer, pack, unpack

QUESTION: Said = ({"do": "claim"}, [['2["ä"]', b"\0\n"]])


class Router:
    """Passes messages from one worker to another."""

    def __init__(self) -> None:
        self.posted: list[tuple[Message, list[int]]] = []

    def post(self, message: Message, descriptors: Sequence[int] = (), own: bool = False) -> None:
        assert own or not descriptors
        self.posted.append((message, list(descriptors)))

    def pass_on(self, claims: Claims) -> None:
        posted, self.posted = self.posted, []
        for message, descriptors in posted:
            try:
                claims.handle(message, descriptors)
            finally:
                close_all(descriptors)


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def asked() -> list[Any]:
    return []


@pytest.fixture
def claims(router: Router, asked: list[Any]) -> Claims:
    return Claims(router, lambda question, answered: asked.append((question, answered)))


@pytest.mark.parametrize(
    "said",
    [
        ({}, []),
        ({"reason": "x", "numbers": [1, None]}, [[]]),
        ({"a": {"b": "ü"}}, [['2["ä",{"_placeholder":true,"num":0}]', b"\xff\n\0"], [b""], [""]]),
    ],
)
def test_what_is_said_comes_as_it_was(said: Said) -> None:
    assert unpack(pack(said)) == said


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[{},[[5]]]\nabc",
        b"[{},[[2]]]\nabc",
        b"[[],[]]\n",
        b"[{},[[null]]]\n",
        b"[{},[[1]]]\n\xff",
        b'[{},"x"]\n',
        b"[" * 100_000,
    ],
)
def test_what_is_not_of_this_form_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        unpack(data)


def test_a_question_is_answered(
    router: Router, claims: Claims, asked: list[Any], no_leak: Callable[[], Any]
) -> None:
    with no_leak():
        answers: list[Said] = []
        claims.ask("11111111", QUESTION, answers.append)
        assert router.posted[0][0] == recovery.claim(1, "11111111", {})
        router.pass_on(claims)  # it is its own owner here
        ((question, answered),) = asked
        assert question == QUESTION
        answered(({"state": 5}, [["2[1]"]]))
        router.pass_on(claims)
        assert answers == [({"state": 5}, [["2[1]"]])]


def test_the_router_may_answer_itself(router: Router, claims: Claims) -> None:
    answers: list[Said] = []
    claims.ask("11111111", QUESTION, answers.append)
    close_all(router.posted[0][1])
    claims.handle(recovery.not_claimed(1, "unknown-pid"), ())
    assert answers == [({"reason": "unknown-pid"}, ())]
    claims.handle(recovery.not_claimed(1, "unknown-pid"), ())  # nobody waits any more
    assert len(answers) == 1


def test_the_next_router_is_asked_again(router: Router, claims: Claims, asked: list[Any]) -> None:
    answers: list[Said] = []
    claims.ask("11111111", QUESTION, answers.append)
    ((message, descriptors),) = router.posted
    close_all(descriptors)  # with the router
    router.posted.clear()
    claims.repeat()
    assert router.posted[0][0] == message
    router.pass_on(claims)
    assert asked[0][0] == QUESTION


def test_who_has_waited_for_too_long_is_forgotten(
    router: Router, claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    claims.ask("11111111", QUESTION, lambda answer: None)
    now += CLAIM_TIMEOUT / 2
    claims.ask("22222222", QUESTION, lambda answer: None)
    now += CLAIM_TIMEOUT / 2
    for _, descriptors in router.posted:
        close_all(descriptors)
    router.posted.clear()
    claims.repeat()
    assert [message["tag"] for message, _ in router.posted] == ["22222222"]
    close_all(router.posted[0][1])


def test_so_many_questions_are_answered_at_a_time(
    router: Router, claims: Claims, asked: list[Any]
) -> None:
    descriptor = memory_file.write("x", pack(QUESTION))
    for number in range(CLAIMS_AT_ONCE + 1):
        claims.handle(recovery.claim(number, "11111111", {}), [descriptor])
    assert len(asked) == CLAIMS_AT_ONCE
    ((message, descriptors),) = router.posted
    assert message == recovery.claimed(CLAIMS_AT_ONCE, {})
    assert unpack(memory_file.read(descriptors[0], 1000)) == ({"reason": NO_OWNER}, [])
    asked[0][1](no_answer())
    claims.handle(recovery.claim(number + 1, "11111111", {}), [descriptor])
    assert len(asked) == CLAIMS_AT_ONCE + 1
    close_all([descriptor, *(one for _, posted in router.posted for one in posted)])


def test_more_than_an_answer_may_have_is_not_sent(
    router: Router, claims: Claims, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLAIM_LENGTH", len(pack(({}, [["x" * 1000]]))))
    answers: list[Said] = []
    for length in (1000, 1001):
        claims.ask("11111111", QUESTION, answers.append)
        router.pass_on(claims)
        asked.pop()[1](({}, [["x" * length]]))
        router.pass_on(claims)
    assert answers == [({}, [["x" * 1000]]), ({"reason": NOT_KEPT}, [])]


def test_nonsense_is_refused(claims: Claims, no_leak: Callable[[], Any]) -> None:
    with no_leak():
        with pytest.raises(ChannelError, match="without its question"):
            claims.handle(recovery.claim(1, "11111111", {}), ())
        descriptor = memory_file.write("x", b"nonsense")
        with pytest.raises(ChannelError, match="cannot read a claim"):
            claims.handle(recovery.claim(1, "11111111", {}), [descriptor])
        os.close(descriptor)


def test_without_a_free_descriptor_there_is_no_answer(
    router: Router, claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory_file(name: str, data: bytes) -> int:
        raise OSError(24, "too many open files")

    answers: list[Said] = []
    claims.ask("11111111", QUESTION, answers.append)
    close_all(router.posted.pop()[1])
    claims.lost_descriptors(recovery.claimed(1, {}))
    assert answers == [no_answer()]
    claims.lost_descriptors({"type": "sessions"})  # of others
    monkeypatch.setattr(module.memory_file, "write", no_memory_file)
    claims.lost_descriptors(recovery.claim(7, "11111111", {}))
    assert router.posted == [(recovery.not_claimed(7, NO_OWNER), [])]
    claims.ask("11111111", QUESTION, answers.append)
    assert answers == [no_answer()] * 2 and len(router.posted) == 1
