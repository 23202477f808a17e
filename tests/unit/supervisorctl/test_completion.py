from __future__ import annotations

from typing import Optional

import pytest

from supervisor_sio.supervisorctl.completion import candidates

WORKERS = ["chat:chat_00", "chat:chat_01", "solo"]
OF_CLUSTERS = {"sio": WORKERS, "shop": ["shop:shop_00"]}


def offered(line: str) -> Optional[list[str]]:
    """What TAB offers at the end of this line."""
    text = line[line.rfind(" ") + 1 :]
    words = candidates(
        line[: len(line) - len(text)].split(),
        text,
        lambda cluster: OF_CLUSTERS[cluster],
        lambda: list(OF_CLUSTERS),
    )
    return None if words is None else [word.rstrip() for word in words]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sio re", ["reload", "rebalance", "reload-tls"]),
        ("sio kick", ["kick"]),
        ("sio drain ", [*WORKERS, "chat:*", "solo:*"]),
        ("sio drain chat:chat_00 chat:", ["chat:chat_01", "chat:*"]),
        ("sio reload so", ["solo", "solo:*"]),
        ("sio reload --", ["--surge", "--json", "--help"]),
        ("sio reload --surge so", ["solo", "solo:*"]),
        ("sio scale c", ["chat"]),
        ("sio scale chat ", []),
        ("sio sockets --", ["--room", "--namespace", "--limit", "--json", "--help"]),
        ("sio sockets --l", ["--limit"]),
        ("sio sockets --limit ", []),
        ("sio sockets ", []),
        ("sio help ro", ["rooms"]),
        ("help sio to", ["top"]),
        ("sio help top ", []),
        ("sio nonsense ", []),
        ("sio --", ["--cluster"]),
        ("sio --cluster ", ["sio", "shop"]),
        ("sio --cluster sh", ["shop"]),
        ("sio --cluster shop re", ["reload", "rebalance", "reload-tls"]),
        ("sio --cluster shop drain ", ["shop:shop_00", "shop:*"]),
        ("start ", None),
        ("si", None),
        ("help si", None),
        ("", None),
    ],
)
def test_candidates(line: str, words: Optional[list[str]]) -> None:
    assert offered(line) == words


def test_every_command_is_offered() -> None:
    words = offered("sio ")
    assert words is not None and {"status", "top", "emit", "scale", "help"} <= set(words)
