"""A deployment's configuration, read as supervisord reads it.

Supervisor's own parser reads, but one section at a time: what it refuses is
noted, taken out, and the reading goes on, so that one mistake does not hide the
next. Nothing is started or opened for writing, and this process stays as it is.
"""

from __future__ import annotations

import configparser
import difflib
import enum
import glob
import io
import os
import platform
import re
import shlex
import shutil
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, NamedTuple, Optional

from supervisor.datatypes import name_to_uid
from supervisor.events import EventTypes
from supervisor.options import ClientOptions, ServerOptions, UnhosedConfigParser, expand

from ..common.commands import subcommand_in, subcommand_of
from ..common.limits import SCRIPT_LENGTH
from ..settings import PERCENT, Settings, SettingsError, parse_settings

PLUGIN = "rpcinterface:sio"
FACTORY_OPTION = "supervisor.rpcinterface_factory"
FACTORY = "supervisor_sio.rpcinterface:make_rpcinterface"

Sections = dict[str, dict[str, str]]

_PYTHON = re.compile(r"""(?:^|[\s/"'])(?:python|pypy)[\d.]*(?:\s|$)|\.py(?:["'\s]|$)""")

_SHELLS = {"sh", "bash", "dash", "ash", "zsh", "ksh"}
_SHEBANG = re.compile(rf"#!\S*/(?:env +)?(?:{'|'.join(sorted(_SHELLS))})\b")

#: What takes the place of options that a section cannot do without.
_STAND_INS = {"command": "cat", "events": "PROCESS_STATE"}


class Unreadable(Exception):
    """There is no configuration to judge; the text is one line for a person."""


class Finding(NamedTuple):
    """Something that is wrong, and what to do about it."""

    severity: str
    file: str
    section: str
    option: str
    text: str

    def __str__(self) -> str:
        place = f"[{self.section}] {self.option}".rstrip() + ": " if self.section else ""
        return f"{self.severity}: {self.file}: {place}{self.text}"


class Role(enum.Enum):
    """What a program is in the cluster, as far as its command tells."""

    ROUTER = "router"
    WORKER = "worker"
    #: A Python program, which may call ``serve()``.
    PYTHON = "python"
    OTHER = "other"


def script_of(command: str) -> str:
    """The shell script that a command starts; empty when it is something else."""
    words = [word for word in split_command(command) if not word.startswith("-")]
    if words and os.path.basename(words[0]) in _SHELLS:
        words = words[1:]
    found = shutil.which(words[0]) or words[0] if words else ""
    return found if found and _SHEBANG.match(head_of(found)) else ""


def head_of(path: str) -> str:
    """The beginning of a file; empty when it cannot be read."""
    try:
        if not os.path.isfile(path):
            return ""
        with open(path, errors="replace") as file:
            return file.read(SCRIPT_LENGTH)
    except (OSError, ValueError):
        return ""


def split_command(command: str) -> list[str]:
    """Its words; none when it cannot be split."""
    try:
        return shlex.split(command)
    except ValueError:
        return []


def role_of(command: str) -> Role:
    subcommand = subcommand_of(command)
    if subcommand == "router":
        return Role.ROUTER
    if subcommand == "worker":
        return Role.WORKER
    return Role.PYTHON if subcommand is None and _PYTHON.search(command) else Role.OTHER


@dataclass(frozen=True)
class Program:
    """A section that starts processes; without any when supervisord refuses it."""

    section: str
    command: str
    role: Role
    #: :class:`supervisor.options.ProcessConfig` for each process.
    processes: tuple[Any, ...] = ()
    #: The start script that the role was found in.
    script: str = ""
    #: The group's; an event listener's has ``pool_events`` and ``buffer_size``.
    group: Any = None

    @property
    def kind(self) -> str:
        return self.section.partition(":")[0]

    @property
    def name(self) -> str:
        return self.section.partition(":")[2].strip()


@dataclass
class Configuration:
    """Everything the rules look at."""

    path: str
    here: str
    #: As merged from all files, without what supervisord refuses.
    sections: Sections = field(default_factory=dict)
    #: Of the main file, which is all that supervisorctl reads.
    main: Sections = field(default_factory=dict)
    expansions: dict[str, str] = field(default_factory=dict)
    #: Where each option was read last, and each section (option "") first.
    origins: dict[tuple[str, str], str] = field(default_factory=dict)
    supervisord: Any = None
    #: The uid that ``user`` in ``[supervisord]`` asks for.
    uid: Optional[int] = None
    servers: list[Any] = field(default_factory=list)
    settings: Optional[Settings] = None
    programs: list[Program] = field(default_factory=list)
    #: What supervisord itself refuses.
    refused: list[Finding] = field(default_factory=list)

    def error(self, section: str, option: str, text: str) -> Finding:
        return self._finding("error", section, option, text)

    def warning(self, section: str, option: str, text: str) -> Finding:
        return self._finding("warning", section, option, text)

    def _finding(self, severity: str, section: str, option: str, text: str) -> Finding:
        fallback = self.origins.get((section, ""), self.path)
        file = self.origins.get((section, option), fallback)
        return Finding(severity, file, section, option, text)

    def of_role(self, *roles: Role) -> list[Program]:
        return [program for program in self.programs if program.role in roles]

    @property
    def workers(self) -> list[Program]:
        """The programs that run workers; if none does for sure, those that may."""
        return self.of_role(Role.WORKER) or self.of_role(Role.PYTHON)

    def expand(self, value: str, name: str) -> str:
        """:raises ValueError: as supervisorctl, for what cannot be expanded."""
        return str(expand(value, {**self.expansions, "here": self.here}, name))


def default_path() -> str:
    """The file that supervisord takes without ``-c``.

    :raises Unreadable: when there is none.
    """
    paths: list[str] = [os.path.normpath(path) for path in ServerOptions().searchpaths]
    for path in paths:
        if os.path.exists(path):
            return path
    raise Unreadable(f"no configuration file at {', '.join(paths)}; name yours")


def read(path: str) -> Configuration:
    """Read a main file and all that it includes.

    :raises Unreadable: when a file cannot be read or is no ini file.
    """
    configuration = Configuration(path, os.path.abspath(os.path.dirname(path)))
    _Reader(configuration).read()
    return configuration


def read_whole(configuration: Configuration) -> Iterator[Finding]:
    """What supervisord and supervisorctl say to their files as a whole: the last word."""
    readers = [ServerOptions()]
    if "supervisorctl" in configuration.main:
        readers.append(ClientOptions())
    for reader in readers:
        reader.here = configuration.here
        reader.configfile = configuration.path
        try:
            reader.read_config(configuration.path)
        except Exception as error:
            yield configuration.error("", "", in_plain_words(str(error) or type(error).__name__))


class _Refused(Exception):
    """supervisord does not take a section; the text is its own."""


class _Reader:
    def __init__(self, configuration: Configuration) -> None:
        self._to = configuration
        self._to.expansions = ServerOptions().environ_expansions

    def read(self) -> None:
        self._read_files()
        self._read_supervisord()
        # As supervisord does it: plugins first, they may bring events of their own.
        for section in self._named("rpcinterface:"):
            self._read_plugin(section)
        for section in self._named("unix_http_server", "inet_http_server"):
            accepted = self._accepted(section)
            if accepted is not None:
                self._to.servers += accepted.server_configs
        for section in self._named("program:", "fcgi-program:", "eventlistener:"):
            self._read_program(section)
        for section in self._named("group:"):
            self._read_group(section)

    def _named(self, *prefixes: str) -> list[str]:
        return [section for section in self._to.sections if section.startswith(prefixes)]

    def _refuse(self, section: str, option: str, text: str) -> None:
        self._to.refused.append(self._to.error(section, option, text))

    # --- files ----------------------------------------------------------------

    def _read_files(self) -> None:
        parser = UnhosedConfigParser()
        self._to.main = self._read_file(parser, self._to.path)
        if parser.has_section("include"):
            # Only then: supervisord knows %(here)s in fewer places without.
            parser.expand_here(self._to.here)
            for filename in self._included(parser):
                included = self._read_file(parser, filename)
                parser.expand_here(os.path.dirname(os.path.abspath(filename)))
                if "include" in included and not os.path.samefile(filename, self._to.path):
                    self._to.refused.append(
                        Finding(
                            "warning",
                            filename,
                            "include",
                            "files",
                            "supervisord does not follow this in an included file; name the "
                            f"files in {self._to.path}",
                        )
                    )
        self._to.sections = _plain(parser)

    def _read_file(self, parser: Any, filename: str) -> Sections:
        """Into the parser; returns what this file alone says."""
        alone = UnhosedConfigParser()
        try:
            with open(filename) as file:
                text = file.read()
            if "\0" in text:
                raise Unreadable(f"{filename}: not a text file")
            alone.read_string(text, filename)
            parser.read_string(text, filename)
        except OSError as error:
            raise Unreadable(f"{filename}: {(error.strerror or str(error)).lower()}") from None
        except UnicodeDecodeError as error:
            raise Unreadable(f"{filename}: not a text file ({error.reason})") from None
        except configparser.Error as error:
            raise Unreadable(_describe(filename, error)) from None
        sections = _plain(alone)
        for section, options in sections.items():
            self._to.origins.setdefault((section, ""), filename)
            for option in options:
                self._to.origins[section, option] = filename
        return sections

    def _included(self, parser: Any) -> Iterator[str]:
        if not parser.has_option("include", "files"):
            self._refuse("include", "files", "missing; name files, or take the section out")
            return
        try:
            files = expand(
                parser.get("include", "files"),
                {**self._to.expansions, "here": self._to.here, "host_node_name": platform.node()},
                "include.files",
            )
        except ValueError as error:
            self._refuse("include", "files", in_plain_words(str(error)))
            return
        for pattern in files.split():
            filenames = glob.glob(os.path.join(self._to.here, pattern))
            if not filenames:
                self._skipped("warning", f"no file matches {pattern}")
            for filename in sorted(filenames):
                shown = _shown(filename)
                if os.path.isdir(filename):
                    self._skipped(
                        "warning", f"supervisord skips {shown}, a directory; write {pattern}/*.conf"
                    )
                elif not os.access(filename, os.R_OK):
                    # RawConfigParser.read() goes on without it, and without a word.
                    self._skipped("error", f"{shown} cannot be read; supervisord would skip it")
                else:
                    yield shown

    def _skipped(self, severity: str, text: str) -> None:
        self._to.refused.append(Finding(severity, self._to.path, "include", "files", text))

    # --- sections ---------------------------------------------------------------

    def _read_supervisord(self) -> None:
        if "supervisord" not in self._to.sections:
            self._refuse("supervisord", "", "missing; supervisord does not start without it")
            self._to.sections["supervisord"] = {}
        self._to.supervisord = self._accepted("supervisord")
        if self._to.supervisord is None:
            self._to.sections["supervisord"] = {}
        user = getattr(self._to.supervisord, "user", None)
        if user is not None:
            try:
                self._to.uid = name_to_uid(user)
            except (ValueError, OverflowError):
                self._refuse("supervisord", "user", f"{user!r} is not a user of this host")

    def _read_plugin(self, section: str) -> None:
        options = self._to.sections[section]
        if section == PLUGIN and options.get(FACTORY_OPTION) != FACTORY:
            self._refuse(section, FACTORY_OPTION, f"must be {FACTORY}")
            options[FACTORY_OPTION] = FACTORY
        accepted = self._accepted(section)
        if section == PLUGIN and accepted is not None:
            ((_, _, given),) = accepted.rpcinterface_factories
            self._to.settings = self._read_settings(given)

    def _read_settings(self, given: dict[str, str]) -> Optional[Settings]:
        while True:
            try:
                return parse_settings(given)
            except SettingsError as error:
                self._refuse(PLUGIN, error.option, error.reason)
                if given.pop(error.option, None) is None:
                    return None  # not the option, but what it defaults to

    def _read_program(self, section: str) -> None:
        options = self._to.sections[section]
        command = options.get("command", "")
        if not command:
            self._refuse(section, "command", "missing; supervisord has nothing to start")
            options["command"] = _STAND_INS["command"]
        if section.startswith("eventlistener:") and not options.get("events"):
            self._refuse(section, "events", "missing; write events = PROCESS_STATE")
            options["events"] = _STAND_INS["events"]
        accepted = self._accepted(section)
        if accepted is None:
            self._to.programs.append(Program(section, command, role_of(command)))
            return
        (group,) = accepted.process_group_configs
        processes = tuple(group.process_configs)
        if processes and options["command"] == command:  # and no stand-in
            command = processes[0].command
        role, script = role_of(command), ""
        if role is Role.OTHER and subcommand_of(command) is None:
            script = script_of(command)
            subcommand = subcommand_in(head_of(script)) if script else None
            role = {"router": Role.ROUTER, "worker": Role.WORKER}.get(subcommand or "", role)
        self._to.programs.append(Program(section, command, role, processes, script, group))

    def _read_group(self, section: str) -> None:
        members = [
            f"{kind}:{name.strip()}"
            for name in self._to.sections[section].get("programs", "").split(",")
            for kind in ("program", "fcgi-program")
        ]
        present = [program for program in self._to.programs if program.section in members]
        if all(program.group is not None for program in present):  # or it is told already
            self._accepted(section, *[program.section for program in present])

    # --- supervisord's opinion ------------------------------------------------------

    def _accepted(self, section: str, *more: str) -> Any:
        """supervisord's reading of a section, without the options that it refuses.

        ``None`` when it cannot be made to take the section.
        """
        options = self._to.sections[section]
        refused: set[str] = set()
        while True:
            sections = {name: self._to.sections[name] for name in ("supervisord", section, *more)}
            try:
                return self._ask(sections)
            except _Refused as reason:
                option = self._culprit(sections, section, str(reason))
                if option and option not in refused:
                    self._refuse(section, option, in_plain_words(str(reason)))
                    refused.add(option)
                    del options[option]
                    if option in _STAND_INS:
                        options[option] = _STAND_INS[option]
                    continue
                if not refused:  # or it is only that the option is missing now
                    self._refuse(section, "", in_plain_words(str(reason)))
                return None

    def _culprit(self, sections: Sections, section: str, message: str) -> str:
        """The option without which supervisord takes the section, or refuses another one."""
        candidate = ""
        for option in sections[section]:
            without = {k: v for k, v in sections[section].items() if k != option}
            try:
                self._ask({**sections, section: without})
                return option
            except _Refused as reason:
                if str(reason) != message and not candidate:
                    candidate = option
        return candidate

    def _ask(self, sections: Mapping[str, Mapping[str, str]]) -> Any:
        text = io.StringIO()
        options = ServerOptions()
        options.here = self._to.here
        options.configfile = self._to.path
        try:
            parser = configparser.RawConfigParser()
            parser.read_dict(sections)
            parser.write(text)
            text.seek(0)
            return options.read_config(text)
        # ValueError is a refusal, everything else what supervisord would die of.
        except Exception as error:
            raise _Refused(str(error) or type(error).__name__) from None


def _plain(parser: Any) -> Sections:
    return {section: dict(parser.items(section)) for section in parser.sections()}


def _shown(filename: str) -> str:
    """As somebody in this directory would type it."""
    relative = os.path.relpath(filename)
    return filename if relative.startswith(os.pardir) else relative


def _describe(filename: str, error: configparser.Error) -> str:
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"{filename}, line {error.lineno}: no [section] before {error.line.strip()!r}"
    if isinstance(error, configparser.ParsingError) and error.errors:
        number, line = error.errors[0]
        return (
            f"{filename}, line {number}: neither a section, an option nor a comment: {line.strip()}"
        )
    return f"{filename}: {' '.join(str(error).split())}"


def in_plain_words(message: str) -> str:
    """One line without what the place of a finding says already."""
    text = " ".join(message.split())
    text = re.sub(r" in section '[^']*' \(file: '[^']*'\)$", "", text)
    text = re.sub(r"^\[[^]]*\] (section )?", "", text)
    match = re.search(r"contains names \('(.*?)'\) which cannot be expanded", text)
    if match:
        name = match.group(1)
        if name.startswith("ENV_"):
            return (
                f"%({name})s: {name[4:]} is not in this environment; run the check in the "
                "environment that supervisord has"
            )
        return f"supervisord has no %({name})s for this; write a percent sign as %%"
    if text.startswith("Format string"):
        # What it has may be a password.
        return f"supervisord does not understand what follows a percent sign; {PERCENT}"
    match = re.fullmatch(r"invalid literal for int\(\) with base 10: (.*)", text)
    if match:
        return f"{match.group(1)} is not a whole number"
    match = re.match(r"Unknown event type (\S+)", text)
    if match:
        names = [name for name in vars(EventTypes) if name.isupper()]
        close = difflib.get_close_matches(match.group(1), names, n=1)
        hint = f"did you mean {close[0]}?" if close else "see Supervisor's list of event types"
        return f"{match.group(1)} is not an event; {hint}"
    if "%(process_num) must be present" in text:
        return (
            "more than one process needs a name for each; write "
            "process_name = %(program_name)s_%(process_num)02d"
        )
    return text
