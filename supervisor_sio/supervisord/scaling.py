"""Add processes to a running group, and remove them.

Supervisor creates the processes of a group together with the group, from ``numprocs`` in its
section. This module lets Supervisor's parser read the current configuration file with another
``numprocs``, and compares the result with the running processes, to find out whether the section
has changed since.
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

#: Greatest number of processes in a group.
MOST = 1000

#: Descriptors that supervisord itself needs, for connections and for starting processes.
_SPARE_DESCRIPTORS = 32


class ScalingError(Exception):
    """A group cannot be scaled; the text says why in one line."""


class Plan(NamedTuple):
    """The processes to add or to remove; one of the lists is empty."""

    #: Lowest number first.
    added: list[str]
    #: Highest number first.
    surplus: list[str]


def target(wanted: Union[int, str], current: int, cpus: int) -> int:
    """The number of processes that ``N``, ``+N``, ``-N`` or ``max`` means for a group.

    :raises ScalingError: when it is none of these, or the number is out of range.
    """
    text = str(wanted)
    if text == "max":
        return max(1, min(cpus, MOST))
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text):
        raise ScalingError(f"{text} is not a number of processes: give N, +N, -N or max")
    numprocs = int(text)
    if text[0] in "+-":
        numprocs += current
    if numprocs < 1:
        raise ScalingError("a group keeps at least 1 process; for none, use supervisorctl stop")
    if numprocs > MOST:
        raise ScalingError(f"{numprocs} processes are too many: at most {MOST}")
    return numprocs


def make_plan(names: Sequence[str], current: int, numprocs: int) -> Plan:
    """Which processes to add to a group, or to remove.

    :param names: the names of the processes of the larger group, in the order of their numbers.
    """
    return Plan(list(names[current:numprocs]), list(names[numprocs:current])[::-1])


def differences(running: ProcessConfig, read: ProcessConfig) -> list[str]:
    """The options in which two processes differ, as Supervisor compares them."""
    names = ProcessConfig.req_param_names + ProcessConfig.optional_param_names
    pairs = [(name, getattr(running, name), getattr(read, name)) for name in names]
    return [name for name, a, b in pairs if a != b and Automatic not in (a, b)]


@dataclass
class ProgramReading:
    """A ``[program:x]`` in the current configuration file."""

    section: str = ""
    #: The processes with the file's ``numprocs``, in the order of their numbers.
    configured: list[ProcessConfig] = field(default_factory=list)
    #: The processes with the wanted ``numprocs``.
    wanted: list[ProcessConfig] = field(default_factory=list)

    def check(self, running: Collection[str], made: Mapping[str, ProcessConfig]) -> None:
        """Check that the processes of a group match this section.

        :param running: all processes of the group, without a gap in their numbers.
        :param made: those that supervisord has created; the scaler has added the others.
        :raises ScalingError: when they do not match.
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
    """Read the section of a program as supervisord does with these options.

    The file is read again because Supervisor keeps only the processes that it created from it.

    :raises ScalingError: when the file cannot be read, or does not allow ``numprocs`` processes.
    """
    reading = ProgramReading()

    def make_groups(parser: Any) -> list[ProcessGroupConfig]:
        """Replaces ``process_groups_from_parser``: reads this program alone, twice."""
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

    # Read into a copy, so that supervisord's own options do not change.
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
            f"[{sections['group', name]}] combines programs; only the group of a [program:x] can "
            "be scaled"
        )
    if ("program", name) not in sections:
        raise ScalingError(f"the configuration file has no [program:{name}] any more")
    return str(sections["program", name])


class ScaledGroupConfig(ProcessGroupConfig):  # type: ignore[misc]
    """The configuration of a group that was scaled.

    Supervisor's own one does not change, because `remove` and `add` use it.
    """

    def __init__(self, config: ProcessGroupConfig) -> None:
        super().__init__(config.options, config.name, config.priority, config.process_configs[:])
        #: The processes that the scaler has added.
        self.added: set[str] = set()
        #: The processes to remove, in this order, so that the numbers get no gap.
        self.leaving: list[str] = []


class Scaler:
    """Adds processes to supervisord's groups, and removes them."""

    def __init__(self, supervisord: Supervisord) -> None:
        self._supervisord = supervisord
        self._options = supervisord.options

    def scale(self, name: str, wanted: Union[int, str]) -> dict[str, Any]:
        """Add missing processes; return the surplus ones.

        :raises RPCError: when the group cannot be scaled; then it is unchanged.
        """
        self._check_mood()
        group = self._supervisord.process_groups.get(name)
        if group is None:
            raise RPCError(Faults.BAD_NAME, "no such group")
        try:
            _check_kind(group.config)
            if not group.processes:  # no process to compare the section with
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
            # supervisord starts it in its next turn, if autostart is true.
            group.processes[config.name] = config.make_process(group)
            group.config.added.add(config.name)
        # In the order of Supervisor's parser, or `reread` would report a change.
        group.config.process_configs = sorted(group.config.process_configs + configs)
        self._options.logger.info(
            f"sio: added to {group.config.name}: {', '.join(c.name for c in configs)}"
        )

    def remove(self, name: str) -> Callable[[], Any]:
        """Return a deferred that waits until a process has stopped, and removes it.

        :raises RPCError: when the process cannot be removed; the deferred raises it, too.
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
            # Only a scaled group has processes that may be removed.
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
    """Give a group a configuration that can be scaled; to be called after all checks, because other
    kinds of groups need their own."""
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
    """Check that supervisord has the descriptors to start these processes, and to answer."""
    needed = _SPARE_DESCRIPTORS + sum(
        # Its pipes, and its log files.
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
