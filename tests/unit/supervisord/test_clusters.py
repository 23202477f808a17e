from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from supervisor import events, loggers
from supervisor.options import ServerOptions
from supervisor.supervisord import Supervisor

from supervisor_sio.common.clusters import CLUSTER, CLUSTERS, FACTORY, FACTORY_OPTION
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE
from supervisor_sio.supervisord.clusters import ClustersError, make_clusters

VARIABLES = (ENVIRONMENT_VARIABLE, CLUSTER, CLUSTERS)


@pytest.fixture
def supervisord(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A supervisord that runs no process, with any clusters."""
    monkeypatch.setattr("supervisor.events.callbacks", [])
    for name in VARIABLES:
        monkeypatch.setenv(name, "of a supervisord around it")
    options = ServerOptions()
    options.logger = loggers.getLogger()
    return Supervisor(options)


def sections(directory: Path, **more: dict[str, str]) -> dict[str, dict[str, str]]:
    """The sections of two clusters that share nothing."""
    made = {
        name: {"listen": f"unix:{directory}/{name}.s", "run_dir": f"{directory}/{name}"}
        for name in ("chat", "shop")
    }
    for name, options in more.items():
        made[name].update(options)
    return made


def environment_of(supervisord: Any, cluster: str | None) -> tuple[str | None, ...]:
    """The environment of a process that names this cluster."""

    environment = None if cluster is None else {CLUSTER: cluster}
    process = SimpleNamespace(
        backoff=0,
        config=SimpleNamespace(name="x", command="cat", environment=environment),
        group=SimpleNamespace(config=SimpleNamespace(name="x")),
    )
    events.notify(events.ProcessStateStartingEvent(process, 0))
    return tuple(map(os.environ.get, VARIABLES))


def test_a_file_that_is_read_twice_has_its_sections_once(supervisord: Any, tmp_path: Path) -> None:
    """The pattern of an include matches the main file, or two patterns match one file."""
    main, other = tmp_path / "main.conf", tmp_path / "other.conf"
    section = f"[rpcinterface:chat]\n{FACTORY_OPTION} = {FACTORY}\n"
    main.write_text(section)
    other.write_text(section.replace("chat", "shop"))
    supervisord.options.configfile = str(main)
    included = (main, other, tmp_path / "." / "other.conf", other)
    supervisord.options.parse_infos = [
        f'Included extra file "{path}" during parsing' for path in included
    ]
    clusters = make_clusters(supervisord, sections(tmp_path))
    assert list(clusters) == ["chat", "shop"]
    for cluster in clusters.values():
        cluster.close()
    (tmp_path / "copy.conf").write_text(section)
    supervisord.options.parse_infos += [
        f'Included extra file "{tmp_path}/copy.conf" during parsing'
    ]
    with pytest.raises(ClustersError, match=r"^\[rpcinterface:chat\]: there are several sections"):
        make_clusters(supervisord, sections(tmp_path))


def test_each_process_gets_the_directory_of_its_cluster(supervisord: Any, tmp_path: Path) -> None:
    clusters = make_clusters(supervisord, sections(tmp_path))
    assert list(clusters) == ["chat", "shop"]
    for _ in range(2):
        for name in ("shop", "chat"):
            assert environment_of(supervisord, name) == (f"{tmp_path}/{name}", name, "chat,shop")
        assert environment_of(supervisord, None) == (None, None, "chat,shop")
        assert environment_of(supervisord, "caht") == (None, None, "chat,shop")
    environment_of(supervisord, "chat")
    events.notify(events.SupervisorStoppingEvent())
    assert not any(name in os.environ for name in VARIABLES)
    assert sorted(os.listdir(tmp_path)) == ["chat", "shop"]  # and no socket


def test_one_cluster_has_every_process(supervisord: Any, tmp_path: Path) -> None:
    run = f"{tmp_path}/run"
    make_clusters(supervisord, {"sio": {"listen": f"unix:{tmp_path}/s", "run_dir": run}})
    assert environment_of(supervisord, None) == (run, "sio", "sio")
    events.notify(events.SupervisorStoppingEvent())


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"listn": "x"}, "listn: unknown option; did you mean 'listen'?"),
        (
            {"listen": "unix:{}/shop.s, unix:{}/chat.s"},
            "listen: cluster chat uses unix:{}/chat.s too; use another one",
        ),
        ({"metrics": "unix:{}/chat.s"}, "metrics: cluster chat uses unix:{}/chat.s too; use"),
        ({"run_dir": "{}/chat"}, "run_dir: cluster chat uses {}/chat too; name a directory that"),
        (
            {"message_queue": "redis://h", "channel": "c"},
            "channel: cluster chat uses 'c' on the same message_queue too: each would receive "
            "the other's emits; write another name",
        ),
        ({"listen": "unix:/no/such/s"}, "listen: unix:/no/such/s: No such file or directory"),
    ],
)
def test_what_keeps_supervisord_from_two_clusters(
    supervisord: Any, tmp_path: Path, more: dict[str, str], line: str
) -> None:
    made = sections(
        tmp_path,
        chat={"message_queue": "redis://h", "channel": "c"},
        shop={name: text.replace("{}", str(tmp_path)) for name, text in more.items()},
    )
    with pytest.raises(ClustersError) as caught:
        make_clusters(supervisord, made)
    expected = "[rpcinterface:shop] " + line.replace("{}", str(tmp_path))
    assert str(caught.value).startswith(expected)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".s")]


def test_a_cluster_that_cannot_be_called_so(supervisord: Any, tmp_path: Path) -> None:
    made = {"a.b": {"listen": f"unix:{tmp_path}/s"}}
    with pytest.raises(ClustersError, match=r"^\[rpcinterface:a\.b\]: 'a\.b' is not a valid name"):
        make_clusters(supervisord, made)


@pytest.mark.parametrize("included", [False, True])
def test_two_sections_of_one_name(supervisord: Any, tmp_path: Path, included: bool) -> None:
    section = f"[rpcinterface:chat]\n{FACTORY_OPTION} = {FACTORY}\n"
    main, more = tmp_path / "supervisord.conf", tmp_path / "more.conf"
    main.write_text(section + ("" if included else section))
    more.write_text(section)
    options = supervisord.options
    options.configfile = str(main)
    if included:
        main.write_text("[supervisord]\n[include]\nfiles = more.conf\n" + section)
        options.here = str(tmp_path)
        options.read_config(str(main))
    with pytest.raises(ClustersError, match=r"^\[rpcinterface:chat\]: there are several sections "):
        make_clusters(supervisord, {"chat": {"listen": f"unix:{tmp_path}/s"}})
