"""Rules about sections: those that must exist, and options that must match between them."""

from __future__ import annotations

import difflib
import socket
from typing import Any, Iterator
from urllib.parse import urlsplit

from supervisor.events import ProcessStateEvent, ProcessStateStoppingEvent
from supervisor.options import ProcessConfig, ServerOptions, normalize_path

from ..common.clusters import CLUSTER, FACTORY_OPTION, USUAL, ctl_command
from .configuration import PLUGIN, Configuration, Finding
from .host import Host
from .roles import Role
from .wording import in_plain_words

CTL_OPTION = "supervisor.ctl_factory"
CTL_FACTORY = "supervisor_sio.ctlplugin:make_ctlplugin"
MAIN_FACTORY = "supervisor.rpcinterface:make_main_rpcinterface"

_NAMED = ("program", "eventlistener", "fcgi-program", "group", "rpcinterface", "ctlplugin")
_PLAIN = ("supervisord", "supervisorctl", "include", "unix_http_server", "inet_http_server")

_PROCESS = {
    *ProcessConfig.req_param_names,
    *ProcessConfig.optional_param_names,
    "process_name",
    "user",
    "numprocs",
    "numprocs_start",
} - {"name", "uid"}

#: The options of Supervisor; it ignores all others.
OPTIONS = {
    "supervisord": {
        "environment",
        *(place.partition(".")[2] for _, place in ServerOptions().names_list if place),
    },
    "supervisorctl": {"serverurl", "username", "password", "prompt", "history_file"},
    "unix_http_server": {"file", "chmod", "chown", "username", "password"},
    "inet_http_server": {"port", "username", "password"},
    "include": {"files"},
    "group": {"programs", "priority"},
    "program": _PROCESS,
    "eventlistener": _PROCESS | {"events", "buffer_size", "result_handler"},
    "fcgi-program": _PROCESS | {"socket", "socket_owner", "socket_mode", "socket_backlog"},
}


def spelling(conf: Configuration, host: Host) -> Iterator[Finding]:
    """Are sections and options known? supervisord ignores unknown ones silently."""
    for section in conf.sections:
        kind, colon, name = section.partition(":")
        if kind in _NAMED and not colon:
            yield conf.warning(
                section, "", f"has no name, so supervisord ignores it; write [{kind}:NAME]"
            )
        elif kind not in _NAMED + _PLAIN:
            close = difflib.get_close_matches(kind, _NAMED + _PLAIN, n=1, cutoff=0.75)
            if close:
                yield conf.warning(
                    section, "", f"unknown section; did you mean [{close[0]}{colon}{name}]?"
                )
        known = OPTIONS.get(kind, ())
        for option in conf.sections[section] if known else ():
            if option not in known:
                yield conf.warning(section, option, f"unknown option; {_hint(option, known)}")


def _hint(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f"did you mean {close[0]!r}?" if close else "supervisord ignores it"


def plugin(conf: Configuration, host: Host) -> Iterator[Finding]:
    if not conf.clusters:
        yield conf.error(
            PLUGIN, "", "missing, so nothing listens; add what `supervisor-sio init` prints"
        )
    elif len(conf.clusters) == 1 and USUAL not in conf.clusters:
        (name,) = conf.clusters
        yield conf.warning(
            f"rpcinterface:{name}",
            "",
            f"supervisorctl uses the cluster {USUAL} by default; write [{PLUGIN}], or type "
            f"{ctl_command(name)} ...",
        )


def ctl_plugin(conf: Configuration, host: Host) -> Iterator[Finding]:
    name = "ctlplugin:sio"
    strays = [
        section
        for section, options in conf.main.items()
        if section.startswith("ctlplugin:") and options.get(CTL_OPTION) == CTL_FACTORY
    ]
    if strays:
        return  # the section may have any name
    if name in conf.main:
        yield conf.error(name, CTL_OPTION, f"must be {CTL_FACTORY}")
    elif name in conf.sections:
        yield conf.error(
            name, "", f"supervisorctl reads no included files; move the section to {conf.path}"
        )
    else:
        yield conf.error(
            name,
            "",
            f"missing, so `supervisorctl sio` does not exist; add it with {CTL_OPTION} = "
            f"{CTL_FACTORY}",
        )


def http_server(conf: Configuration, host: Host) -> Iterator[Finding]:
    if not any(s.startswith(("unix_http_server", "inet_http_server")) for s in conf.sections):
        yield conf.error(
            "unix_http_server",
            "",
            "missing, as is [inet_http_server]: without an HTTP server, supervisord does not load "
            "[rpcinterface:sio]; add it with file = /run/supervisor.sock",
        )
    name = "rpcinterface:supervisor"
    if conf.sections.get(name, {}).get(FACTORY_OPTION) != MAIN_FACTORY:
        yield conf.error(
            name,
            FACTORY_OPTION if name in conf.sections else "",
            f"supervisorctl needs this section, with {FACTORY_OPTION} = {MAIN_FACTORY}",
        )


def supervisorctl(conf: Configuration, host: Host) -> Iterator[Finding]:
    name = "supervisorctl"
    wanted = f"serverurl = {_url(conf.servers[0])}" if conf.servers else "a serverurl"
    if name not in conf.main:
        included = name in conf.sections
        text = f"move it to {conf.path}, supervisorctl reads no included files"
        yield conf.error(name, "", text if included else f"missing; add it with {wanted}")
        return
    options = conf.main[name]
    try:
        url = conf.expand(options.get("serverurl", "http://localhost:9001"), "serverurl")
    except ValueError as error:
        yield conf.error(name, "serverurl", in_plain_words(str(error)))
        return
    matching = [server for server in conf.servers if _serves(server, url)]
    if conf.servers and not matching:
        default = "" if "serverurl" in options else ", the default"
        yield conf.error(
            name, "serverurl", f"supervisord does not listen at {url}{default}; write {wanted}"
        )
    if matching and matching[0]["username"]:
        for option in ("username", "password"):
            if not options.get(option):
                yield conf.warning(name, option, f"missing; [{matching[0]['section']}] requires it")


def _url(server: Any) -> str:
    if server["family"] == socket.AF_UNIX:
        return f"unix://{server['file']}"
    return f"http://{server['host'] or '127.0.0.1'}:{server['port']}"


def _serves(server: Any, url: str) -> bool:
    if url.startswith("unix://"):
        return bool(server.get("file") == normalize_path(url[len("unix://") :]))
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    # The host's name may be any of its addresses; the port is the usual mistake.
    return bool(parts.scheme == "http" and server.get("port") == (port or 80))


# --- who runs what ----------------------------------------------------------------


def router(conf: Configuration, host: Host) -> Iterator[Finding]:
    routers = conf.of_role(Role.ROUTER)
    if conf.lacks(Role.ROUTER):
        yield conf.error(
            f"eventlistener:{conf.cluster}",
            "",
            "missing: no section runs the router, so no connection is accepted; add it with "
            f"command = supervisor-sio router and events = PROCESS_STATE{_environment(conf)}",
        )
    for number, program in enumerate(routers):
        if program.kind != "eventlistener":
            yield conf.error(
                program.section,
                "",
                "the router speaks the event listener protocol; rename the section to "
                f"[eventlistener:{program.name}] and add events = PROCESS_STATE",
            )
        if number:
            yield conf.error(
                program.section,
                "command",
                f"a second router besides [{routers[0].section}], which supervisord refuses; "
                "remove one section",
            )
        if len(program.processes) > 1:
            yield conf.error(program.section, "numprocs", "only one router may run; remove this")


def router_events(conf: Configuration, host: Host) -> Iterator[Finding]:
    for program in conf.of_role(Role.ROUTER):
        if program.kind != "eventlistener" or program.group is None:
            continue
        events = program.group.pool_events
        if not any(issubclass(ProcessStateStoppingEvent, event) for event in events):
            yield conf.error(
                program.section,
                "events",
                "the router needs the event that a worker is being stopped; write "
                "events = PROCESS_STATE",
            )
        elif not all(issubclass(event, ProcessStateEvent) for event in events):
            yield conf.warning(
                program.section,
                "events",
                "the router needs no other events, and supervisord waits for each answer; "
                "write events = PROCESS_STATE",
            )
        # STARTING and RUNNING of each process: more at a time are rare.
        changes = 2 * sum(
            1
            for other in (*conf.programs, *conf.other_programs)
            for process in other.processes
            if process.autostart
        )
        if program.group.buffer_size < changes:
            yield conf.warning(
                program.section,
                "buffer_size",
                f"holds {program.group.buffer_size} events, but {changes} occur when all processes "
                "start: supervisord drops the oldest, and logs errors; write "
                f"buffer_size = {changes}",
            )


def workers(conf: Configuration, host: Host) -> Iterator[Finding]:
    for program in conf.of_role(Role.WORKER):
        if program.kind == "eventlistener":
            yield conf.error(
                program.section, "", f"a worker is a program; write [program:{program.name}]"
            )
        elif program.group is not None and not program.processes:
            yield conf.error(program.section, "numprocs", "starts no worker; write 1 or more")
    if conf.workers or not conf.lacks(Role.WORKER):
        return
    section = "program:workers" if conf.cluster == USUAL else f"program:{conf.cluster}_workers"
    text = f"add [{section}] with command = supervisor-sio worker module:app{_environment(conf)}"
    if conf.of_role(Role.OTHER):
        yield conf.warning(
            section,
            "",
            f"missing: no program looks like a worker; unless one calls serve(), {text}",
        )
    else:
        yield conf.error(section, "", f"missing: no program runs a worker; {text}")


def _environment(conf: Configuration) -> str:
    """The option that a program's section needs with several clusters."""
    if len(conf.clusters) < 2:
        return ""
    return f', and environment = {CLUSTER}="{conf.cluster}"'
