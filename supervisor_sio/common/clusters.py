"""The clusters of a supervisord by name, and which of them a program is in.

A section ``[rpcinterface:NAME]`` with our factory makes the cluster NAME. Of one cluster is all
that supervisord starts; where there are more, a program says in its ``environment`` which is its
own. Everything here is pure, but for :func:`section` and :func:`why_none`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Iterable, Optional, Sequence

FACTORY_OPTION = "supervisor.rpcinterface_factory"
FACTORY = "supervisor_sio.rpcinterface:make_rpcinterface"

#: The name that ``supervisorctl sio`` asks for, unless it is told another one.
USUAL = "sio"

#: In the environment of a program: the name of its cluster. supervisord gives it to all of them.
CLUSTER = "SUPERVISOR_SIO_CLUSTER"

#: From supervisord, for whoever is in none: the names of all.
CLUSTERS = "SUPERVISOR_SIO_CLUSTERS"

#: What can stand before the dot of an XML-RPC method, in an environment, and in a command.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

#: Supervisor's own XML-RPC namespaces.
_TAKEN = ("supervisor", "system")

_HEADER = re.compile(r"\[rpcinterface:([^]]*)\]")


class NoCluster(ValueError):
    """A program is in no cluster; the text says why, and what to do."""


def choose(named: Optional[str], clusters: Sequence[str]) -> str:
    """The cluster of a program.

    :param named: what its environment says.
    :param clusters: the names of those that there are.
    :raises NoCluster: when it names none of several, or one that there is not.
    """
    if named in clusters:
        return str(named)
    if named:
        raise NoCluster(f"{CLUSTER}: there is no cluster {named!r}, only {listed(clusters)}")
    if len(clusters) == 1:
        return clusters[0]
    raise NoCluster(
        f"supervisord has the clusters {listed(clusters)}, and this program does not say which is "
        f'its own; add {CLUSTER}="{clusters[0]}", or another one, to environment in its section'
    )


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def ctl_command(cluster: str) -> str:
    """What an operator types for a cluster, with a command behind it."""
    return "supervisorctl sio" + ("" if cluster == USUAL else f" --cluster {cluster}")


def name_fault(name: str) -> Optional[str]:
    """Why a cluster cannot be called so."""
    if name in _TAKEN:
        return f"{name} is the name of Supervisor's own methods; take another one for the cluster"
    if not _NAME.fullmatch(name):
        return (
            f"a cluster cannot be called {name!r}: take a letter, and behind it letters, digits, "
            "- and _"
        )
    return None


def repeated(texts: Iterable[str]) -> list[str]:
    """The names of clusters for which these files have more than one section.

    :param texts: of each file, once, however often supervisord reads it.

    supervisord makes one of both, and says nothing. A section without the factory adds to
    another one, which may be meant.
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


#: What is wrong with a section of which :func:`repeated` has the name.
REPEATED = (
    "there is more than one section of this name, and supervisord makes one cluster of them; "
    "give each its own name"
)


def section() -> str:
    """The section of the cluster that this process is in."""
    return f"[rpcinterface:{os.environ.get(CLUSTER) or USUAL}]"


def why_none() -> str:
    """Why supervisord has started this process in no cluster; empty when it does not say."""
    clusters = os.environ.get(CLUSTERS)
    try:
        if clusters:
            choose(os.environ.get(CLUSTER), clusters.split(","))
    except NoCluster as reason:
        return str(reason)
    return ""
