"""The clusters of a supervisord by name, and the cluster that a program belongs to.

A section ``[rpcinterface:NAME]`` with our factory makes the cluster NAME. With one cluster, every
program of supervisord belongs to it; with several, a program names its cluster in its
``environment``. All functions but :func:`section` and :func:`why_none` are pure.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Iterable, Optional, Sequence

FACTORY_OPTION = "supervisor.rpcinterface_factory"
FACTORY = "supervisor_sio.rpcinterface:make_rpcinterface"

#: The name of the cluster that ``supervisorctl sio`` shows without ``--cluster``.
USUAL = "sio"

#: Environment variable with the name of a program's cluster. The user may set it; supervisord
#: sets it for the other programs.
CLUSTER = "SUPERVISOR_SIO_CLUSTER"

#: Environment variable with the names of all clusters, which supervisord sets for programs that
#: are in none.
CLUSTERS = "SUPERVISOR_SIO_CLUSTERS"

#: What is allowed before the dot of an XML-RPC method, in an environment, and in a command.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

#: Supervisor's own XML-RPC namespaces.
_TAKEN = ("supervisor", "system")

_HEADER = re.compile(r"\[rpcinterface:([^]]*)\]")


class NoCluster(ValueError):
    """A program belongs to no cluster; the text says why, and what to do."""


def choose(named: Optional[str], clusters: Sequence[str]) -> str:
    """Return the name of a program's cluster.

    :param named: the cluster in the program's environment.
    :param clusters: the names of all clusters.
    :raises NoCluster: when the program names none of several, or one that does not exist.
    """
    if named in clusters:
        return str(named)
    if named:
        raise NoCluster(f"{CLUSTER}: there is no cluster {named!r}, only {listed(clusters)}")
    if len(clusters) == 1:
        return clusters[0]
    raise NoCluster(
        f"supervisord has the clusters {listed(clusters)}, and this program names none of them; "
        f'add {CLUSTER}="{clusters[0]}", or another one, to environment in its section'
    )


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def ctl_command(cluster: str) -> str:
    """The start of the command line for a cluster, to which a command is appended."""
    return "supervisorctl sio" + ("" if cluster == USUAL else f" --cluster {cluster}")


def name_fault(name: str) -> Optional[str]:
    """Why this is not a valid name for a cluster, or ``None``."""
    if name in _TAKEN:
        return f"{name} is reserved for Supervisor's own methods; choose another name"
    if not _NAME.fullmatch(name):
        return (
            f"{name!r} is not a valid name of a cluster: use a letter, followed by letters, "
            "digits, - and _"
        )
    return None


def repeated(texts: Iterable[str]) -> list[str]:
    """The names of clusters that have more than one section in these files.

    supervisord merges such sections silently. A section without the factory is not counted: it may
    be meant to add options to the other one.

    :param texts: the text of each file, once, however often supervisord reads the file.
    """
    counted: Counter[str] = Counter()
    for text in texts:
        name = ""
        for line in text.splitlines():
            if line.startswith("["):
                header = _HEADER.match(line)
                name = header[1] if header else ""
            elif name and line.startswith(FACTORY_OPTION) and FACTORY in line:
                counted[name] += 1
                name = ""  # once for each section
    return [name for name, count in counted.items() if count > 1]


#: The error for a name that :func:`repeated` returns.
REPEATED = (
    "there are several sections of this name, and supervisord merges them into one cluster; "
    "give each its own name"
)


def section() -> str:
    """The section of this process's cluster."""
    return f"[rpcinterface:{os.environ.get(CLUSTER) or USUAL}]"


def why_none() -> str:
    """Why supervisord started this process outside any cluster; empty when this is unknown."""
    clusters = os.environ.get(CLUSTERS)
    try:
        if clusters:
            choose(os.environ.get(CLUSTER), clusters.split(","))
    except NoCluster as reason:
        return str(reason)
    return ""
