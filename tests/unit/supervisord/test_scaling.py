from __future__ import annotations

import gc
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Union

import pytest
from supervisor.http import NOT_DONE_YET
from supervisor.options import ServerOptions
from supervisor.states import ProcessStates, SupervisorStates
from supervisor.supervisord import Supervisor
from supervisor.xmlrpc import Faults, RPCError

from supervisor_sio.supervisord import scaling
from supervisor_sio.supervisord.scaling import (
    MOST,
    Plan,
    Scaler,
    ScalingError,
    differences,
    make_plan,
    read_program,
    target,
)


@pytest.mark.parametrize(
    ("wanted", "current", "numprocs"),
    [
        ("4", 2, 4),
        (4, 2, 4),
        ("04", 2, 4),
        ("1", 8, 1),
        ("+2", 2, 4),
        ("-1", 2, 1),
        (-1, 2, 1),
        ("+0", 3, 3),
        ("max", 2, 6),
        ("max", 8, 6),
        (str(MOST), 2, MOST),
    ],
)
def test_target(wanted: Union[int, str], current: int, numprocs: int) -> None:
    assert target(wanted, current, cpus=6) == numprocs


@pytest.mark.parametrize("cpus", [1, MOST + 5])
def test_max_is_a_number_to_have(cpus: int) -> None:
    assert target("max", 2, cpus) == min(cpus, MOST)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("0", "keeps at least 1 process; for none, use supervisorctl stop"),
        (0, "keeps at least 1"),
        ("-2", "keeps at least 1"),
        ("-5", "keeps at least 1"),
        (str(MOST + 1), f"{MOST + 1} processes are too many: at most {MOST}"),
        ("+999", "1001 processes are too many"),
        ("999999999", "too many"),
        ("9" * 10, "not a number of processes: give N, \\+N, -N or max"),
        ("", "not a number"),
        ("four", "four is not a number"),
        ("2.0", "not a number"),
        ("+-2", "not a number"),
        ("²", "not a number"),
        ("4\n", "not a number"),
        (True, "not a number"),
        ("MAX", "not a number"),
    ],
)
def test_no_target(wanted: Union[int, str], reason: str) -> None:
    with pytest.raises(ScalingError, match=reason):
        target(wanted, 2, cpus=4)


NAMES = [f"w_{number}" for number in range(12)]


@pytest.mark.parametrize(
    ("current", "numprocs", "plan"),
    [
        (2, 4, Plan(["w_2", "w_3"], [])),
        (2, 2, Plan([], [])),
        (4, 2, Plan([], ["w_3", "w_2"])),
        # By number, not by name: w_10 is above w_9.
        (11, 9, Plan([], ["w_10", "w_9"])),
        (9, 11, Plan(["w_9", "w_10"], [])),
    ],
)
def test_plan(current: int, numprocs: int, plan: Plan) -> None:
    assert make_plan(NAMES[: max(numprocs, current)], current, numprocs) == plan


CONFIG = """\
[supervisord]
childlogdir = {directory}
environment = WHERE="here"
identifier = test

[program:workers]
command = worker --port 80%(process_num)02d --of %(numprocs)d
process_name = %(program_name)s_%(process_num)d
numprocs = 2
numprocs_start = 1
environment = NUMBER="%(process_num)d",OTHER="%(ENV_OTHER)s"
stdout_logfile = {directory}/%(program_name)s-%(process_num)d.log

[program:plain]
command = cat

[program:none]
command = cat
process_name = none_%(process_num)d
numprocs = 0

[group:both]
programs = one, two

[program:one]
command = cat

[program:two]
command = cat

[eventlistener:listener]
command = cat
events = TICK_5

[fcgi-program:fcgi]
command = cat
socket = unix://{directory}/fcgi.sock
"""


class Daemon:
    """A supervisord that has read its configuration, and starts nothing."""

    def __init__(self, directory: Path, config: str = CONFIG) -> None:
        self.path = directory / "supervisord.conf"
        self.path.write_text(config.format(directory=directory))
        self.options = ServerOptions()
        self.options.environ_expansions["ENV_OTHER"] = "environ"
        self.options.realize(["-c", str(self.path)])
        self.logged: list[str] = []
        self.options.logger = SimpleNamespace(info=self.logged.append)
        self.supervisord = Supervisor(self.options)
        for config in self.options.process_group_configs:
            if config.name != "fcgi":  # would listen
                self.supervisord.add_process_group(config)
        self.scaler = Scaler(self.supervisord)

    @property
    def groups(self) -> dict[str, Any]:
        groups: dict[str, Any] = self.supervisord.process_groups
        return groups

    def edit(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert old in text
        self.path.write_text(text.replace(old, new))

    def reread(self) -> tuple[list[str], ...]:
        """What ``supervisorctl reread`` shows: added, changed, removed."""
        self.read()
        return tuple([group.name for group in each] for each in self.supervisord.diff_to_active())

    def read(self) -> list[Any]:
        """The groups of the file as it is now."""
        self.options.process_config(do_usage=False)
        groups: list[Any] = self.options.process_group_configs
        return groups

    def remove(self, name: str) -> Any:
        return self.scaler.remove(name)()

    def refuses(self, name: str, wanted: Union[int, str] = 4) -> str:
        before = {name: dict(group.processes) for name, group in self.groups.items()}
        with pytest.raises(RPCError) as caught:
            self.scaler.scale(name, wanted)
        assert {name: dict(group.processes) for name, group in self.groups.items()} == before
        text: str = caught.value.text.partition(": ")[2]
        assert "\n" not in text
        return text


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path)


def test_added_processes_are_as_supervisor_makes_them(daemon: Daemon, tmp_path: Path) -> None:
    answer = daemon.scaler.scale("workers", 4)
    assert answer == {
        "group": "workers",
        "numprocs": 4,
        "configured": 2,
        "added": ["workers:workers_3", "workers:workers_4"],
        "surplus": [],
        "kept": [],
    }
    group = daemon.groups["workers"]
    daemon.edit("numprocs = 2", "numprocs = 4")
    (fresh,) = [c for c in daemon.read() if c.name == "workers"]
    for name in ("workers_3", "workers_4"):
        process = group.processes[name]
        (made,) = [c for c in fresh.process_configs if c.name == name]
        assert differences(process.config, made) == []
        assert process.group is group and process.config.options is daemon.options
        assert process.get_state() == ProcessStates.STOPPED and not process.laststart
    config = group.processes["workers_4"].config
    assert config.command == "worker --port 8004 --of 4"
    assert config.environment == {"WHERE": "here", "NUMBER": "4", "OTHER": "environ"}
    assert config.stdout_logfile == str(tmp_path / "workers-4.log")
    assert config.stderr_logfile.startswith(str(tmp_path / "workers_4-stderr---test-"))
    assert os.path.exists(config.stderr_logfile)
    assert daemon.logged == ["sio: added to workers: workers_3, workers_4"]


def test_what_supervisord_has_read_stays(daemon: Daemon) -> None:
    read = [config for config in daemon.options.process_group_configs if config.name == "workers"]
    daemon.scaler.scale("workers", 3)
    assert [config.name for config in read[0].process_configs] == ["workers_1", "workers_2"]
    assert daemon.options.process_group_configs.count(read[0]) == 1
    assert [config.name for config in daemon.groups["workers"].config.process_configs] == [
        "workers_1",
        "workers_2",
        "workers_3",
    ]


def test_reread_compares_with_the_file(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, CONFIG.replace(" --of %(numprocs)d", ""))
    assert daemon.reread() == (["fcgi"], [], [])
    daemon.scaler.scale("workers", 12)
    assert daemon.reread() == (["fcgi"], ["workers"], [])
    daemon.edit("numprocs = 2", "numprocs = 12")
    assert daemon.reread() == (["fcgi"], [], [])
    assert daemon.scaler.scale("workers", "+1")["configured"] == 12


def test_the_file_has_another_numprocs_now(daemon: Daemon) -> None:
    """A different numprocs alone does not make the section a different program."""
    daemon.edit("numprocs = 2", "numprocs = 3")
    assert daemon.refuses("workers").startswith("[program:workers] has another command in")
    daemon.edit(" --of %(numprocs)d", " --of 2")
    assert daemon.scaler.scale("workers", 4)["configured"] == 3


@pytest.mark.parametrize(
    ("old", "new", "option"),
    [
        ("worker --port", "worker --ports", "command"),
        ("numprocs_start = 1", "numprocs_start = 2", "process_name or numprocs_start"),
        ("numprocs_start = 1", "numprocs_start = 0", "process_name or numprocs_start"),
        ("e)s_%(process_num)d\nnumprocs = 2", "e)s-%(process_num)d\nnumprocs = 2",
         "process_name or numprocs_start"),
        ('WHERE="here"', 'WHERE="there"', "environment"),
        ("numprocs = 2", "numprocs = 2\nstopwaitsecs = 20\nautostart = false",
         "autostart, stopwaitsecs"),
    ],
)  # fmt: skip
def test_the_section_has_changed(daemon: Daemon, old: str, new: str, option: str) -> None:
    daemon.scaler.scale("workers", 3)
    daemon.edit(old, new)
    for wanted in (4, 3, 1):
        assert daemon.refuses("workers", wanted) == (
            f"[program:workers] has another {option} in the configuration file than the running "
            "processes; run supervisorctl update first, or undo the change"
        )
    daemon.edit(new, old)
    assert daemon.scaler.scale("workers", 4)["added"] == ["workers:workers_4"]


def test_the_file_cannot_be_used(daemon: Daemon) -> None:
    whole = daemon.path.read_text()
    for text, reason in (
        (whole.replace("command = worker", "no = worker"), "does not specify a command"),
        (whole.replace("[supervisord]", "[supervisor]"), "does not include supervisord section"),
        (whole.replace("%(ENV_OTHER)s", "%(ENV_NONE)s"), "cannot be expanded"),
        ("nothing\n" + whole, "no section headers"),
        (
            whole.replace("[program:workers]", "[program:others]"),
            r"no \[program:workers\] any more",
        ),
    ):
        daemon.path.write_text(text)
        with pytest.raises(RPCError, match=reason):
            daemon.scaler.scale("workers", 4)
        daemon.refuses("workers")
    daemon.path.unlink()
    assert daemon.refuses("workers").startswith(
        "the configuration file cannot be used: could not find config file "
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nobody", "no such group"),
        ("workers:workers_1", "no such group"),
        ("one", "no such group"),
        ("both", "[group:both] combines programs; only the group of a [program:x] can be"),
        ("listener", "an event listener cannot be scaled, only the group of a [program:x]"),
        ("plain", "[program:plain] can have 1 process only; for more, write process_name = %(pro"),
        ("none", "the group is empty; set numprocs"),
    ],
)
def test_groups_that_are_not_scaled(daemon: Daemon, name: str, reason: str) -> None:
    assert daemon.refuses(name).startswith(reason)


def test_a_fastcgi_group_is_not_scaled(daemon: Daemon) -> None:
    (config,) = [c for c in daemon.options.process_group_configs if c.name == "fcgi"]
    daemon.groups["fcgi"] = SimpleNamespace(config=config, processes={"fcgi": None})
    assert daemon.refuses("fcgi").startswith("a FastCGI program cannot be scaled")


def test_surplus(daemon: Daemon) -> None:
    daemon.scaler.scale("workers", 10)
    group = daemon.groups["workers"]
    answer = daemon.scaler.scale("workers", 8)
    assert answer["surplus"] == ["workers:workers_10", "workers:workers_9"]
    assert len(group.processes) == 10
    for name in ("workers:workers_9", "workers:workers_8"):
        with pytest.raises(RPCError, match=f"{name} is not the next to leave its group"):
            daemon.remove(name)

    process = group.processes["workers_10"]
    process.state = ProcessStates.RUNNING
    process.pid = 1
    with pytest.raises(RPCError) as caught:
        daemon.remove("workers:workers_10")
    assert caught.value.code == Faults.STILL_RUNNING
    process.state = ProcessStates.STOPPING
    result = daemon.scaler.remove("workers:workers_10")
    assert result() is NOT_DONE_YET and result() is NOT_DONE_YET
    process.state = ProcessStates.STOPPED
    process.pid = 0
    assert result() is True
    assert daemon.remove("workers:workers_9") is True
    names = [f"workers_{number}" for number in range(1, 9)]
    assert sorted(group.processes) == names
    assert [config.name for config in group.config.process_configs] == names
    for name in ("workers:workers_10", "workers:workers_99", "workers", "nobody:workers_1"):
        with pytest.raises(RPCError) as caught:
            daemon.remove(name)
        assert caught.value.code == Faults.BAD_NAME


def test_what_is_surplus_no_more_is_kept(daemon: Daemon) -> None:
    daemon.scaler.scale("workers", 4)
    assert daemon.scaler.scale("workers", 1)["surplus"] == [
        "workers:workers_4",
        "workers:workers_3",
        "workers:workers_2",
    ]
    answer = daemon.scaler.scale("workers", 3)
    assert answer["surplus"] == ["workers:workers_4"]
    assert answer["kept"] == ["workers:workers_3", "workers:workers_2"]
    with pytest.raises(RPCError, match="not the next"):
        daemon.remove("workers:workers_3")
    answer = daemon.scaler.scale("workers", 5)
    assert (answer["kept"], answer["added"]) == (["workers:workers_4"], ["workers:workers_5"])


def test_the_group_goes_while_a_process_stops(daemon: Daemon) -> None:
    daemon.scaler.scale("workers", 1)
    group = daemon.groups["workers"]
    process = group.processes["workers_2"]
    process.state = ProcessStates.STOPPING
    result = daemon.scaler.remove("workers:workers_2")
    assert result() is NOT_DONE_YET
    process.state = ProcessStates.STOPPED
    assert daemon.supervisord.remove_process_group("workers")
    with pytest.raises(RPCError):
        result()
    # Made anew, it is as the file says.
    (config,) = [c for c in daemon.options.process_group_configs if c.name == "workers"]
    daemon.supervisord.add_process_group(config)
    assert sorted(daemon.groups["workers"].processes) == ["workers_1", "workers_2"]
    with pytest.raises(RPCError, match="not the next"):
        daemon.remove("workers:workers_2")


def test_supervisord_keeps_descriptors_for_itself(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.collect()  # what an earlier test has left must not close in between
    used = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(scaling.resource, "getrlimit", lambda _: (used + 32 + 5 * 10, 4096))
    assert len(daemon.scaler.scale("workers", 10)["added"]) == 8  # and the two that don't run
    assert daemon.refuses("workers", 12).startswith(f"supervisord may open {used + 82} files and")


def test_no_log_file_can_be_made(daemon: Daemon) -> None:
    daemon.options.childlogdir = "/nowhere"
    assert daemon.refuses("workers").startswith("no log file can be made: ")


def test_supervisord_is_stopping(daemon: Daemon) -> None:
    daemon.options.mood = SupervisorStates.SHUTDOWN
    for act in (lambda: daemon.scaler.scale("workers", 4), lambda: daemon.remove("workers:w")):
        with pytest.raises(RPCError) as caught:
            act()
        assert caught.value.code == Faults.SHUTDOWN_STATE


def test_reading_leaves_the_options_alone(daemon: Daemon) -> None:
    before = dict(vars(daemon.options))
    expansions = dict(daemon.options.environ_expansions)
    reading = read_program(daemon.options, "workers", 3)
    assert [len(reading.configured), len(reading.wanted)] == [2, 3]
    after = vars(daemon.options)
    assert {key: id(value) for key, value in after.items()} == {
        key: id(value) for key, value in before.items()
    }
    assert daemon.options.environ_expansions == expansions


@pytest.mark.parametrize("name", ["listener:listener", "plain:plain", "both:one", "workers:no"])
def test_a_group_that_was_not_scaled_stays_what_it_is(daemon: Daemon, name: str) -> None:
    before = {name: group.config for name, group in daemon.groups.items()}
    with pytest.raises(RPCError):
        daemon.remove(name)
    for group in before:
        with pytest.raises(RPCError):
            daemon.scaler.scale(group, "no number")
    assert {name: group.config for name, group in daemon.groups.items()} == before
    assert all(daemon.groups[name].config is config for name, config in before.items())
