from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Optional

from supervisor_sio.common.clusters import CLUSTER
from supervisor_sio.supervisord.programs import Programs


def make_supervisord(**groups: list[Optional[str]]) -> Any:
    """Groups of processes, which say what their cluster is."""
    return SimpleNamespace(
        process_groups={
            name: SimpleNamespace(
                processes={
                    str(number): SimpleNamespace(
                        config=SimpleNamespace(
                            name=f"{name}_{number}",
                            environment=None if cluster is None else {CLUSTER: cluster},
                        )
                    )
                    for number, cluster in enumerate(clusters)
                }
            )
            for name, clusters in groups.items()
        }
    )


def names(programs: Programs) -> list[str]:
    return [process.config.name for process in programs]


def test_of_the_only_cluster_is_all() -> None:
    supervisord = make_supervisord(workers=[None, None], nginx=[None])
    assert names(Programs(supervisord)) == ["workers_0", "workers_1", "nginx_0"]
    assert Programs(supervisord).elsewhere("workers") is None


def test_but_what_names_another_one() -> None:
    assert names(Programs(make_supervisord(workers=[None, "caht", "sio"]))) == [
        "workers_0",
        "workers_2",
    ]


def test_of_several_clusters_each_has_what_names_it() -> None:
    supervisord = make_supervisord(
        chat=["chat", "chat"], mixed=["shop", "chat"], nginx=[None], wrong=["caht"]
    )
    chat, shop = (Programs(supervisord, name, ["chat", "shop"]) for name in ("chat", "shop"))
    assert names(chat) == ["chat_0", "chat_1", "mixed_1"]
    assert names(shop) == ["mixed_0"]
    assert [shop.elsewhere(name) for name in ("chat", "mixed", "nginx", "wrong", "none")] == [
        "chat",
        "chat",
        None,
        None,
        None,
    ]
