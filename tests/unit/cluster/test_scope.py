"""The clients in a scope, by the tags in their sids."""

from __future__ import annotations

from supervisor_sio.cluster.scope import NOBODY, Scope

OWN, ADOPTED = ("aaaaaaaa.1", "e1"), ("bbbbbbbb.1", "e2")


def test_those_with_a_tag_and_all_others() -> None:
    only = Scope(["bbbbbbbb"], only=True, name="bbbbbbbb")
    assert only.select([OWN, ADOPTED]) == [ADOPTED]
    without = Scope.without(["bbbbbbbb"])
    assert without is not None and without.select([OWN, ADOPTED]) == [OWN]
    assert Scope.without([]) is None
    assert NOBODY.select([OWN, ADOPTED]) == []
