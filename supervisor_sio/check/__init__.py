"""``supervisor-sio check``: report what is missing, misspelt or risky in a configuration.

``reading`` reads the files into a ``configuration``, as supervisord does. The rules are in
``wiring`` (sections), ``programs``, ``modes`` (arguments of workers), ``takeover``, ``recycling``,
``resources`` (ports, files, users) and ``packages``. They read facts about the machine from
``host``, about the supervisord from ``daemon``, and about an application's module from ``source``.
``sections`` is what ``supervisor-sio init`` prints.
"""

from __future__ import annotations

import io
import sys
from typing import Optional

from ..settings import Settings, without_credentials
from . import modes, packages, programs, recycling, resources, takeover, wiring
from .configuration import Configuration, Finding
from .host import Host
from .reading import Unreadable, default_path, read, read_whole
from .roles import Role

#: Whether a rule is applied once to all clusters together, or once for each cluster.
ALL, EACH = True, False

RULES = (
    (wiring.plugin, ALL),
    (wiring.ctl_plugin, ALL),
    (wiring.http_server, ALL),
    (wiring.supervisorctl, ALL),
    (wiring.router, EACH),
    (wiring.router_events, EACH),
    (wiring.workers, EACH),
    (wiring.spelling, ALL),
    (programs.commands, ALL),
    (programs.clusters, ALL),
    (programs.arguments, ALL),
    (modes.options, ALL),
    (programs.wrappers, ALL),
    (programs.applications, EACH),
    (modes.applications, ALL),
    (modes.threads, ALL),
    (programs.root, EACH),
    (programs.logs, ALL),
    (programs.stopping, EACH),
    (takeover.times, EACH),
    (recycling.limits, EACH),
    (programs.starting, EACH),
    (resources.descriptors, ALL),
    (resources.backlog, EACH),
    (resources.http_socket, ALL),
    (resources.listen, EACH),
    (resources.apart, EACH),
    (resources.tls, EACH),
    (resources.message_queue, EACH),
    (packages.plugin, ALL),
    (packages.packages, EACH),
    (resources.run_dir, EACH),
    (resources.mode, EACH),
    (resources.owner, EACH),
    (resources.users, EACH),
)


def judge(configuration: Configuration, host: Host) -> list[Finding]:
    """Apply all rules; returns the findings, errors first, sorted by file."""
    refused = {(finding.section, finding.option) for finding in configuration.refused}
    findings = list(configuration.refused)
    clusters = configuration.for_each_cluster()
    for rule, of_all in RULES:
        for part in [configuration] if of_all else clusters:
            for finding in rule(part, host):
                # A refused option has its default instead, which the user did not write.
                if (finding.section, finding.option) not in refused:
                    findings.append(finding)
    if not any(finding.severity == "error" for finding in findings):
        findings += read_whole(configuration)
    return sorted(findings, key=lambda finding: (finding.severity, finding.file, finding.section))


def paths_of(path: Optional[str]) -> tuple[str, ...]:
    """The Engine.IO paths of a configuration, or the default."""
    clusters = read(path).clusters if path else {}
    paths = [path for settings in clusters.values() if settings for path in settings.path]
    return tuple(paths) or Settings().path


def max_memory_of(path: Optional[str]) -> Optional[int]:
    """The ``max_memory`` that applies to each worker of a configuration, or ``None``.

    With several clusters it is the largest, as they do not say whose the application is.
    """
    clusters = read(path).clusters if path else {}
    limits = [settings.max_memory if settings else None for settings in clusters.values()]
    known = [limit for limit in limits if limit is not None]
    return max(known) if known and len(known) == len(limits) else None


def run(path: Optional[str]) -> int:
    """The body of ``supervisor-sio check``; returns the exit status."""
    # The names of files may contain any bytes.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        configuration = read(default_path() if path is None else path)
    except Unreadable as error:
        sys.stderr.write(f"supervisor-sio check: error: {without_credentials(str(error))}\n")
        return 2
    findings = judge(configuration, Host.here())
    for finding in findings:
        print(without_credentials(str(finding)))
    errors = sum(finding.severity == "error" for finding in findings)
    verdict = ", ".join(
        f"{count} {severity}{'s' if count > 1 else ''}"
        for severity, count in (("error", errors), ("warning", len(findings) - errors))
        if count
    )
    summary = "" if errors else f" ({_summary(configuration)})"
    print(f"{configuration.path}: {verdict or 'sound'}{summary}")
    return 1 if errors else 0


def _summary(configuration: Configuration) -> str:
    clusters = configuration.for_each_cluster()
    if len(clusters) == 1:
        return _contents(clusters[0])
    return "; ".join(f"{each.cluster}: {_contents(each)}" for each in clusters)


def _contents(configuration: Configuration) -> str:
    listen = configuration.settings.listen if configuration.settings else ()
    workers = configuration.workers
    certain = any(program.role is Role.WORKER for program in workers)
    return ", ".join(
        [
            f"listen {', '.join(map(str, listen))}",
            f"{len(configuration.of_role(Role.ROUTER))} router",
            ("workers: " if certain else "workers, if they call serve(): ")
            + (", ".join(f"{p.name} \u00d7 {len(p.processes)}" for p in workers) or "none seen"),
        ]
    )
