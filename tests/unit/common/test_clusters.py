from __future__ import annotations

from typing import Optional

import pytest

from supervisor_sio.common import clusters
from supervisor_sio.common.clusters import NoCluster, choose, listed, name_fault, repeated


@pytest.mark.parametrize(
    ("named", "there", "chosen"),
    [
        (None, ["sio"], "sio"),
        ("", ["chat"], "chat"),
        ("chat", ["chat"], "chat"),
        ("shop", ["chat", "shop"], "shop"),
    ],
)
def test_the_cluster_of_a_program(named: Optional[str], there: list[str], chosen: str) -> None:
    assert choose(named, there) == chosen


@pytest.mark.parametrize(
    ("named", "there", "reason"),
    [
        (
            None,
            ["chat", "shop"],
            "supervisord has the clusters chat and shop, and this program names none of them; "
            'add SUPERVISOR_SIO_CLUSTER="chat", or another one, to environment in its '
            "section",
        ),
        ("", ["chat", "shop"], "supervisord has the clusters chat and shop, and"),
        (
            "caht",
            ["chat", "shop", "game"],
            "SUPERVISOR_SIO_CLUSTER: there is no cluster 'caht', only chat, shop and game",
        ),
        ("chat", ["sio"], "SUPERVISOR_SIO_CLUSTER: there is no cluster 'chat', only sio"),
    ],
)
def test_a_program_without_a_cluster(
    monkeypatch: pytest.MonkeyPatch, named: Optional[str], there: list[str], reason: str
) -> None:
    with pytest.raises(NoCluster) as caught:
        choose(named, there)
    assert str(caught.value).startswith(reason)
    # And the process says the same, of what supervisord has told it.
    monkeypatch.setenv(clusters.CLUSTERS, ",".join(there))
    monkeypatch.delenv(clusters.CLUSTER, raising=False)
    if named is not None:
        monkeypatch.setenv(clusters.CLUSTER, named)
    assert clusters.why_none() == str(caught.value)
    monkeypatch.setenv(clusters.CLUSTER, there[0])
    assert clusters.why_none() == ""
    assert clusters.section() == f"[rpcinterface:{there[0]}]"


def test_without_supervisord_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (clusters.CLUSTER, clusters.CLUSTERS):
        monkeypatch.delenv(name, raising=False)
    assert clusters.why_none() == ""
    assert clusters.section() == "[rpcinterface:sio]"


@pytest.mark.parametrize("name", ["sio", "chat", "Chat_2", "my-chat"])
def test_a_name(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize("name", ["", "a.b", "a b", " chat", "2", "_a", "ü", "a,b", 'a"', "a\n"])
def test_not_a_name(name: str) -> None:
    assert "is not a valid name" in str(name_fault(name))


@pytest.mark.parametrize("name", ["supervisor", "system"])
def test_the_names_of_supervisor(name: str) -> None:
    assert str(name_fault(name)).startswith(f"{name} is reserved for Supervisor's own methods")


def test_names_in_a_sentence() -> None:
    assert [listed(["a", "b", "c"][:count]) for count in (1, 2, 3)] == [
        "a",
        "a and b",
        "a, b and c",
    ]


CHAT = f"""\
[rpcinterface:chat]  ; the first
{clusters.FACTORY_OPTION}={clusters.FACTORY}
listen = :80
"""


def test_two_sections_of_one_name() -> None:
    shop = CHAT.replace("chat", "shop")
    assert repeated([CHAT + shop]) == []
    assert repeated([CHAT + shop, CHAT.replace("80", "81")]) == ["chat"]
    assert repeated([shop + CHAT + "[program:x]\n" + shop]) == ["shop"]
    # Options that one file adds to the section of another one may be meant.
    assert repeated([CHAT, "[rpcinterface:chat]\nlisten = :81\n"]) == []
    # An option that a section has twice is that of one section.
    factory = f"{clusters.FACTORY_OPTION}={clusters.FACTORY}\n"
    assert repeated([CHAT + factory]) == []
    # Nor is a comment a section, or somebody else's factory one of ours.
    commented = "".join(f";{line}\n" for line in CHAT.splitlines())
    assert repeated([CHAT, commented, CHAT.replace(clusters.FACTORY, "other:make")]) == []
