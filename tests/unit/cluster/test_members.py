from __future__ import annotations

from supervisor_sio.cluster.members import Members


def test_nobody_is_known_before_the_router_tells() -> None:
    members = Members()
    assert not members.known and list(members) == []
    assert not members.is_local("a") and not members.is_remote("a")
    assert members.set({}) == ([], []) and members.known


def test_those_who_left_are_told() -> None:
    members = Members()
    assert members.set({"a": False, "b": True}) == ([], [])
    assert "a" in members and members.is_local("a") and not members.is_remote("a")
    assert "b" in members and members.is_remote("b") and not members.is_local("b")
    assert members.set({"b": False, "c": True}) == (["a"], ["a"])
    assert sorted(members) == ["b", "c"] and "a" not in members
    assert members.is_local("b")


def test_an_alias_receives_and_does_not_send() -> None:
    """The worker with that tag has ended, and another one has its sessions."""
    members = Members()
    members.set({"a": False, "b": False, "c": True})
    assert members.set({"a": False, "b": False, "c": True}, {"a", "c"}) == (["a", "c"], [])
    assert list(members) == ["b"] and "a" not in members and "c" not in members
    assert members.receives("a") and members.is_local("a") and members.is_remote("c")
    assert members.receivers == ["a", "b"] and members.senders == ["b"]
    # Nobody has them any more.
    assert members.set({"b": False, "c": True}, {"c"}) == ([], ["a"])
    assert not members.receives("a") and members.receivers == ["b"]


def test_whether_there_are_others() -> None:
    members = Members()
    assert not members.has_others("a")
    members.set({"a": False})
    assert not members.has_others("a")
    members.set({"a": False, "b": True}, {"b"})
    assert members.has_others("a")
