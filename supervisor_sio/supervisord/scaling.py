"""Processes added to a running group, and taken out of it.

Supervisor makes the processes of a group when it makes the group, from the
``numprocs`` of its section. Here its own parser makes those of a larger
``numprocs``, from the configuration file as it is now; what is running tells
whether that is still what the group was made from.
"""

from __future__ import annotations

import configparser
import copy
import os
import re
import resource
from dataclasses import dataclass, field
from typing import Any, Callable, Collection, Mapping, NamedTuple, Sequence, Union

from supervisor.datatypes import Automatic, process_or_group_name
from supervisor.http import NOT_DONE_YET
from supervisor.options import (
    Dummy,
    EventListenerPoolConfig,
    FastCGIGroupConfig,
    ProcessConfig,
    ProcessGroupConfig,
    make_namespec,
    split_namespec,
)
from supervisor.states import STOPPED_STATES, ProcessStates, SupervisorStates
from supervisor.xmlrpc import Faults, RPCError

from .deferred import fault
from .dispatchers import Supervisord

#: Processes that a group may have.
MOST = 1000

#: Descriptors that supervisord needs for itself: connections, and to spawn.
_SPARE_DESCRIPTORS = 32


class ScalingError(Exception):
    """A group is not scaled; the text says why, in one line for a person."""


class Plan(NamedTuple):
    """What makes a group as large as it should be; one of them is empty."""

    #: Lowest number first.
    added: list[str]
    #: Highest number first.
    surplus: list[str]


def target(wanted: Union[int, str], current: int, cpus: int) -> int:
    """How many processes ``N``, ``+N``, ``-N`` or ``max`` mean for a group.

    :raises ScalingError: when it is none of them, or not a number to have.
    """
    text = str(wanted)
    if text == "max":
        return max(1, min(cpus, MOST))
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text):
        raise ScalingError(f"{text} is no number of processes: give N, +N, -N or max")
    numprocs = int(text)
    if text[0] in "+-":
        numprocs += current
    if numprocs < 1:
        raise ScalingError("a group keeps at least 1 process; for none, use supervisorctl stop")
    if numprocs > MOST:
        raise ScalingError(f"{numprocs} processes are too many: at most {MOST}")
    return numprocs


def make_plan(names: Sequence[str], current: int, numprocs: int) -> Plan:
    """What to add to the processes of a group, and what to take away.

    :param names: those of the larger of both groups, in the order of their
        numbers.
    """
    return Plan(list(names[current:numprocs]), list(names[numprocs:current])[::-1])


def differences(running: ProcessConfig, read: ProcessConfig) -> list[str]:
    """The options in which two processes differ, as Supervisor compares them."""
    names = ProcessConfig.req_param_names + ProcessConfig.optional_param_names
    pairs = [(name, getattr(running, name), getattr(read, name)) for name in names]
    return [name for name, a, b in pairs if a != b and Automatic not in (a, b)]


@dataclass
class ProgramReading:
    """A ``[program:x]`` as the configuration file has it now."""

    section: str = ""
    #: The processes that the file asks for, in the order of their numbers.
    configured: list[ProcessConfig] = field(default_factory=list)
    #: Those with another ``numprocs``.
    wanted: list[ProcessConfig] = field(default_factory=list)

    def check(self, running: Collection[str], made: Mapping[str, ProcessConfig]) -> None:
        """Are the processes of a group of this section?

        :param running: all of them, without a gap in their numbers.
        :param made: those that supervisord has made; the others come from here.
        :raises ScalingError: when they are not.
        """
        changed: list[str] = []
        if set(running) != {config.name for config in self.wanted[: len(running)]}:
            changed = ["process_name or numprocs_start"]
        for config in self.configured:
            if config.name in made and not changed:
                changed = differences(made[config.name], config)
        if changed:
            raise ScalingError(
                f"[{self.section}] has another {', '.join(changed)} in the configuration file "
                "than the running processes; run supervisorctl update first, or undo the change"
            )


def read_program(options: Any, name: str, numprocs: int) -> ProgramReading:
    """Read the section of a program, as supervisord with these options reads it.

    Supervisor keeps nothing of the file but the processes made from it.

    :raises ScalingError: when that is not possible, or ``numprocs`` is not.
    """
    reading = ProgramReading()

    def make_groups(parser: Any) -> list[ProcessGroupConfig]:
        """In the place of ``process_groups_from_parser``: this program alone, twice."""
        reading.section = _find_section(parser, name)
        configured = make_processes(parser, reading.configured)
        process_name = parser.get(reading.section, "process_name", fallback="")
        if numprocs > 1 and "%(process_num)" not in process_name:
            raise ScalingError(
                f"[{reading.section}] can have 1 process only; for more, write process_name = "
                "%(program_name)s_%(process_num)02d there, and run supervisorctl update"
            )
        parser.set(reading.section, "numprocs", str(numprocs))
        wanted = make_processes(parser, reading.wanted)
        return [ProcessGroupConfig(options, name, 0, each) for each in (configured, wanted)]

    def make_processes(parser: Any, made: list[ProcessConfig]) -> list[ProcessConfig]:
        def make(_: Any, **parameters: Any) -> ProcessConfig:
            made.append(ProcessConfig(options, **parameters))
            return made[-1]

        processes: list[ProcessConfig] = reader.processes_from_section(
            parser, reading.section, name, make
        )
        return processes

    # What supervisord has read stays as it is: this goes into a copy.
    reader = copy.copy(options)
    reader.configroot = Dummy()
    reader.configroot.supervisord = Dummy()
    reader.environ_expansions = dict(options.environ_expansions)
    reader.process_groups_from_parser = make_groups
    try:
        reader.read_config(reader.configfile)
    except (ValueError, OSError, configparser.Error) as error:
        raise ScalingError(
            f"the configuration file cannot be used: {' '.join(str(error).split())}"
        ) from None
    return reading


def _find_section(parser: Any, name: str) -> str:
    sections = {}
    for section in parser.sections():
        kind, _, rest = section.partition(":")
        if kind in ("program", "group"):
            sections[kind, process_or_group_name(rest)] = section
    if ("group", name) in sections:
        raise ScalingError(
            f"[{sections['group', name]}] puts programs together; only the group of a [program:x] "
            "can be scaled"
        )
    if ("program", name) not in sections:
        raise ScalingError(f"the configuration file has no [program:{name}] any more")
    return str(sections["program", name])


class ScaledGroupConfig(ProcessGroupConfig):  # type: ignore[misc]
    """What a group has when it is no longer what its section says.

    The other one stays as supervisord has read it: `remove` and `add` use it.
    """

    def __init__(self, config: ProcessGroupConfig) -> None:
        super().__init__(config.options, config.name, config.priority, config.process_configs[:])
        #: The processes that were made here.
        self.added: set[str] = set()
        #: Those that are on their way out, in that order: the numbers get no gap.
        self.leaving: list[str] = []


class Scaler:
    """Adds processes to supervisord's groups, and removes them."""

    def __init__(self, supervisord: Supervisord) -> None:
        self._supervisord = supervisord
        self._options = supervisord.options

    def scale(self, name: str, wanted: Union[int, str]) -> dict[str, Any]:
        """Add what is missing; say what is too much.

        :raises RPCError: then the group is as it was.
        """
        self._check_mood()
        group = self._supervisord.process_groups.get(name)
        if group is None:
            raise RPCError(Faults.BAD_NAME, "no such group")
        try:
            _check_kind(group.config)
            if not group.processes:  # nothing tells what it was made from
                raise ScalingError("the group is empty; set numprocs, and run supervisorctl update")
            numprocs = target(wanted, len(group.processes), len(os.sched_getaffinity(0)))
            reading = read_program(self._options, name, max(numprocs, len(group.processes)))
            added = group.config.added if isinstance(group.config, ScaledGroupConfig) else ()
            made = {c.name: c for c in group.config.process_configs if c.name not in added}
            reading.check(group.processes, made)
            names = [config.name for config in reading.wanted]
            plan = make_plan(names, len(group.processes), numprocs)
            scaled = _scaled(group)
            self._add(group, [c for c in reading.wanted if c.name in plan.added])
        except ScalingError as error:
            raise RPCError(Faults.FAILED, str(error)) from None
        kept = [process for process in scaled.leaving if process not in plan.surplus]
        scaled.leaving = plan.surplus
        return {
            "group": name,
            "numprocs": numprocs,
            "configured": len(reading.configured),
            "added": [make_namespec(name, process) for process in plan.added],
            "surplus": [make_namespec(name, process) for process in plan.surplus],
            "kept": [make_namespec(name, process) for process in kept],
        }

    def _add(self, group: Any, configs: list[ProcessConfig]) -> None:
        if not configs:
            return
        idle = [process.config for process in group.processes.values() if not process.pid]
        _check_descriptors(idle + configs)
        try:
            for config in configs:
                config.create_autochildlogs()
        except OSError as error:
            raise ScalingError(f"no log file can be made: {error}") from None
        for config in configs:
            # supervisord starts it in its next turn, if autostart says so.
            group.processes[config.name] = config.make_process(group)
            group.config.added.add(config.name)
        # In the order of Supervisor's parser, or `reread` would see a change.
        group.config.process_configs = sorted(group.config.process_configs + configs)
        self._options.logger.info(
            f"sio: added to {group.config.name}: {', '.join(c.name for c in configs)}"
        )

    def remove(self, name: str) -> Callable[[], Any]:
        """What says whether a process has stopped, and is removed then.

        :raises RPCError: and so does what is returned.
        """
        self._check_mood()
        group_name, process_name = split_namespec(name)
        group = self._supervisord.process_groups.get(group_name)
        process = group and group.processes.get(process_name)
        if process is None:
            raise fault(Faults.BAD_NAME, name)

        def result() -> Any:
            if (
                self._supervisord.process_groups.get(group_name) is not group
                or group.processes.get(process_name) is not process
            ):
                raise fault(Faults.BAD_NAME, name)
            config = group.config
            # Only a group that was scaled has any; all others stay what they are.
            if not isinstance(config, ScaledGroupConfig) or process_name not in config.leaving[:1]:
                raise fault(Faults.FAILED, f"{name} is not the next to leave its group")
            if process.get_state() == ProcessStates.STOPPING:
                return NOT_DONE_YET
            if process.get_state() not in STOPPED_STATES or process.pid:
                raise fault(Faults.STILL_RUNNING, f"{name} is still running")
            del group.processes[process_name]
            config.process_configs = [c for c in config.process_configs if c.name != process_name]
            config.added.discard(process_name)
            config.leaving = config.leaving[1:]
            self._options.logger.info(f"sio: removed from {group_name}: {process_name}")
            return True

        return result

    def _check_mood(self) -> None:
        if self._options.mood < SupervisorStates.RUNNING:
            raise RPCError(Faults.SHUTDOWN_STATE)


def _scaled(group: Any) -> ScaledGroupConfig:
    """After all checks: supervisord needs what other kinds of groups have in theirs."""
    if not isinstance(group.config, ScaledGroupConfig):
        group.config = ScaledGroupConfig(group.config)
    return group.config


def _check_kind(config: ProcessGroupConfig) -> None:
    what = "another kind of group"
    for kind, name in (
        (EventListenerPoolConfig, "an event listener"),
        (FastCGIGroupConfig, "a FastCGI program"),
    ):
        if isinstance(config, kind):
            what = name
    if type(config) not in (ProcessGroupConfig, ScaledGroupConfig):
        raise ScalingError(f"{what} cannot be scaled, only the group of a [program:x]")


def _check_descriptors(configs: list[ProcessConfig]) -> None:
    """supervisord must be able to start all of these, and to answer afterwards."""
    needed = _SPARE_DESCRIPTORS + sum(
        # Pipes, and the logs that they go to.
        2 + (not config.redirect_stderr) + bool(config.stdout_logfile) + bool(config.stderr_logfile)
        for config in configs
    )
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    total = len(os.listdir("/proc/self/fd")) + needed
    if limit != resource.RLIM_INFINITY and total > limit:
        raise ScalingError(
            f"supervisord may open {limit} files and would need {total}; "
            f"set minfds = {total} in [supervisord], and restart it"
        )
