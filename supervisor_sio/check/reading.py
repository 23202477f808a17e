"""Read a deployment's configuration as supervisord does.

This uses Supervisor's own parser, but one section at a time: a section that it refuses is noted and
taken out, and the reading goes on, so that one mistake does not hide the next. Nothing is started
or opened for writing, and this process does not change.
"""

from __future__ import annotations

import configparser
import glob
import io
import os
import platform
from typing import Any, Iterator, Mapping, Optional

from supervisor.datatypes import name_to_uid
from supervisor.options import ClientOptions, ServerOptions, UnhosedConfigParser, expand

from ..common.clusters import FACTORY, FACTORY_OPTION, REPEATED, name_fault, repeated
from ..common.commands import subcommand_in, subcommand_of
from ..settings import Settings, SettingsError, parse_settings
from .configuration import PLUGIN, Configuration, Finding, Program, Sections
from .roles import Role, head_of, role_of, script_of
from .wording import describe, in_plain_words, option_in

#: Values for missing options that a section must have.
_STAND_INS = {"command": "cat", "events": "PROCESS_STATE"}


class Unreadable(Exception):
    """The configuration cannot be read; the text is one line that says why."""


def default_path() -> str:
    """The file that supervisord reads without ``-c``.

    :raises Unreadable: when there is none.
    """
    paths: list[str] = [os.path.normpath(path) for path in ServerOptions().searchpaths]
    for path in paths:
        if os.path.exists(path):
            return path
    raise Unreadable(f"no configuration file at {', '.join(paths)}; name yours")


def read(path: str) -> Configuration:
    """Read a main file and the files that it includes.

    :raises Unreadable: when a file cannot be read or is not an ini file.
    """
    configuration = Configuration(path, os.path.abspath(os.path.dirname(path)))
    _Reader(configuration).read()
    return configuration


def read_whole(configuration: Configuration) -> Iterator[Finding]:
    """Errors of supervisord and supervisorctl when they read their files as a whole."""
    readers = [ServerOptions()]
    if "supervisorctl" in configuration.main:
        readers.append(ClientOptions())
    for reader in readers:
        reader.here = configuration.here
        reader.configfile = configuration.path
        try:
            reader.read_config(configuration.path)
        except Exception as error:
            text = str(error) or type(error).__name__
            section, option = option_in(text, configuration.sections)
            yield configuration.error(section, option, in_plain_words(text))


class _Refused(Exception):
    """supervisord refuses a section; the text is its error."""


class _Reader:
    def __init__(self, configuration: Configuration) -> None:
        self._to = configuration
        #: The text of each file, by its real path.
        self._texts: dict[str, str] = {}
        self._to.expansions = ServerOptions().environ_expansions

    def read(self) -> None:
        self._read_files()
        self._read_supervisord()
        # In supervisord's order: plugins first, because they may define events.
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
            # Only with [include], as in supervisord: else it expands %(here)s in fewer places.
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
        for name in repeated(self._texts.values()):
            self._refuse(f"rpcinterface:{name}", "", REPEATED)

    def _read_file(self, parser: Any, filename: str) -> Sections:
        """Read a file into the parser; returns the sections of this file alone."""
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
            raise Unreadable(describe(filename, error)) from None
        self._texts[os.path.realpath(filename)] = text
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
                    # RawConfigParser.read() skips it silently.
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
        if options.get(FACTORY_OPTION) != FACTORY:
            return
        name = section.partition(":")[2]
        fault = name_fault(name)
        if fault:
            self._refuse(section, "", fault)
        self._to.clusters[name] = None
        if accepted is not None:
            ((_, _, given),) = accepted.rpcinterface_factories
            self._to.clusters[name] = self._read_settings(section, given)

    def _read_settings(self, section: str, given: dict[str, str]) -> Optional[Settings]:
        while True:
            try:
                return parse_settings(given)
            except SettingsError as error:
                self._refuse(section, error.option, error.reason)
                if given.pop(error.option, None) is None:
                    return None  # the option is not in the file: its default is wrong

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
        if processes and options["command"] == command:  # not a stand-in
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
        if all(program.group is not None for program in present):  # else reported already
            self._accepted(section, *[program.section for program in present])

    # --- what supervisord accepts ---------------------------------------------------

    def _accepted(self, section: str, *more: str) -> Any:
        """Let supervisord read a section, without the options that it refuses.

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
                if not refused:  # else the error may only be that the option is missing now
                    self._refuse(section, "", in_plain_words(str(reason)))
                return None

    def _culprit(self, sections: Sections, section: str, message: str) -> str:
        """The option to blame: without it, supervisord accepts the section, or refuses another."""
        named = option_in(message, {section: sections[section]})[1]
        if named:
            return named
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
        # ValueError is a refusal; any other exception would end supervisord.
        except Exception as error:
            raise _Refused(str(error) or type(error).__name__) from None


def _plain(parser: Any) -> Sections:
    return {section: dict(parser.items(section)) for section in parser.sections()}


def _shown(filename: str) -> str:
    """The path relative to the current directory if it is below it, else as given."""
    relative = os.path.relpath(filename)
    return filename if relative.startswith(os.pardir) else relative
