"""A deployment's configuration, to which the rules are applied, and their findings."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Optional

from supervisor.options import expand

from ..common.clusters import CLUSTER, USUAL, NoCluster, choose
from ..settings import Settings
from .roles import Role

#: Section of the default cluster.
PLUGIN = f"rpcinterface:{USUAL}"

Sections = dict[str, dict[str, str]]


class Finding(NamedTuple):
    """A mistake or risk, and what to do about it."""

    severity: str
    file: str
    section: str
    option: str
    text: str

    def __str__(self) -> str:
        place = f"[{self.section}] {self.option}".rstrip() + ": " if self.section else ""
        return f"{self.severity}: {self.file}: {place}{self.text}"


@dataclass(frozen=True)
class Program:
    """A section that starts processes; it has none when supervisord refuses the section."""

    section: str
    command: str
    role: Role
    #: A :class:`supervisor.options.ProcessConfig` for each process.
    processes: tuple[Any, ...] = ()
    #: The start script from which the role was read.
    script: str = ""
    #: The group's configuration; an event listener's has ``pool_events`` and ``buffer_size``.
    group: Any = None

    @property
    def kind(self) -> str:
        return self.section.partition(":")[0]

    @property
    def name(self) -> str:
        return self.section.partition(":")[2].strip()

    @property
    def cluster(self) -> Optional[str]:
        """The cluster that the program names in its environment."""
        return self.processes[0].environment.get(CLUSTER) if self.processes else None


@dataclass
class Configuration:
    """What the rules examine; a rule about one cluster gets a configuration with its programs."""

    path: str
    here: str
    #: Merged from all files, without what supervisord refuses.
    sections: Sections = field(default_factory=dict)
    #: The sections of the main file, which is the only file that supervisorctl reads.
    main: Sections = field(default_factory=dict)
    expansions: dict[str, str] = field(default_factory=dict)
    #: The file where each option was read last, and each section (option "") first.
    origins: dict[tuple[str, str], str] = field(default_factory=dict)
    supervisord: Any = None
    #: The uid that ``user`` in ``[supervisord]`` asks for.
    uid: Optional[int] = None
    servers: list[Any] = field(default_factory=list)
    #: The settings of each cluster, by its name; ``None`` when supervisord refuses them.
    clusters: dict[str, Optional[Settings]] = field(default_factory=dict)
    #: The cluster that this configuration is about, and its settings and programs.
    cluster: str = USUAL
    settings: Optional[Settings] = None
    programs: list[Program] = field(default_factory=list)
    #: Programs of other clusters, and those that belong to none.
    other_programs: list[Program] = field(default_factory=list)
    #: Findings about what supervisord itself refuses.
    refused: list[Finding] = field(default_factory=list)

    def error(self, section: str, option: str, text: str) -> Finding:
        return self._finding("error", section, option, text)

    def warning(self, section: str, option: str, text: str) -> Finding:
        return self._finding("warning", section, option, text)

    def _finding(self, severity: str, section: str, option: str, text: str) -> Finding:
        fallback = self.origins.get((section, ""), self.path)
        file = self.origins.get((section, option), fallback)
        return Finding(severity, file, section, option, text)

    @property
    def plugin(self) -> str:
        """The cluster's section."""
        return f"rpcinterface:{self.cluster}"

    def directory_of(self, process: Any) -> str:
        """Where a process starts. Without a configured directory this is supervisord's own, which
        is taken to be the one of the check."""
        start = getattr(self.supervisord, "directory", None) or os.getcwd()
        return os.path.normpath(os.path.join(start, process.directory or ""))

    def for_each_cluster(self) -> list[Configuration]:
        """A configuration for each cluster; without clusters, one for the default cluster."""
        return [self._only(name) for name in self.clusters or [USUAL]]

    def _only(self, cluster: str) -> Configuration:
        # With a single cluster, all programs belong to it.
        several = len(self.clusters) > 1
        inside: dict[bool, list[Program]] = {True: [], False: []}
        for program in self.programs:
            inside[not several or self.cluster_of(program) == cluster].append(program)
        return replace(
            self,
            cluster=cluster,
            settings=self.clusters.get(cluster),
            programs=inside[True],
            other_programs=inside[False],
        )

    def cluster_of(self, program: Program) -> Optional[str]:
        """The program's cluster; ``None`` if it names none of several, or an unknown one."""
        try:
            return choose(program.cluster, [*self.clusters]) if self.clusters else None
        except NoCluster:
            return None

    def lacks(self, role: Role) -> bool:
        """Whether no program has this role; one that belongs to no cluster may be meant for it."""
        return not any(
            program.role is role and self.cluster_of(program) in (None, self.cluster)
            for program in (*self.programs, *self.other_programs)
        )

    def of_role(self, *roles: Role) -> list[Program]:
        return [program for program in self.programs if program.role in roles]

    @property
    def workers(self) -> list[Program]:
        """The programs that run workers; if none certainly does, those that may."""
        return self.of_role(Role.WORKER) or self.of_role(Role.PYTHON)

    def expand(self, value: str, name: str) -> str:
        """Expand as supervisorctl does. :raises ValueError: when the value cannot be expanded."""
        return str(expand(value, {**self.expansions, "here": self.here}, name))
