"""Create all clusters of a supervisord together, before it starts any process."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from typing import Any, Iterator, Mapping

from ..common.clusters import REPEATED, name_fault, repeated
from ..settings import Settings, SettingsError, conflicts, parse_settings
from .cluster import Cluster
from .dispatchers import Supervisord
from .programs import Programs

#: Supervisor's message for each included file that it has read.
_INCLUDED = re.compile(r'Included extra file "(.*)" during parsing')

#: The options of each cluster, by its name.
Sections = Mapping[str, Mapping[str, str]]


class ClustersError(ValueError):
    """The clusters cannot be created; the text is one line that says why."""


def make_clusters(supervisord: Supervisord, sections: Sections) -> dict[str, Cluster]:
    """Create the clusters; returns them by name.

    :raises ClustersError: when one of them cannot be created; nothing stays open then.
    """
    for name in sections:
        fault = name_fault(name)
        if fault:
            raise ClustersError(f"[rpcinterface:{name}]: {fault}")
    for name in repeated(_texts(supervisord.options)):
        raise ClustersError(f"[rpcinterface:{name}]: {REPEATED}")
    settings: dict[str, Settings] = {}
    for name, options in sections.items():
        with _in_section(name):
            settings[name] = parse_settings(options)
    for (name, earlier), (later_name, later) in itertools.combinations(settings.items(), 2):
        with _in_section(later_name):
            for error in conflicts(later, earlier, name):
                raise error
    made: dict[str, Cluster] = {}
    try:
        for name, each in settings.items():
            with _in_section(name):
                made[name] = Cluster(supervisord, each, Programs(supervisord, name, [*settings]))
    except ClustersError:
        for cluster in made.values():
            cluster.close()
        raise
    return made


def _texts(options: Any) -> Iterator[str]:
    """The texts of the files that supervisord has read."""
    included = filter(None, map(_INCLUDED.fullmatch, options.parse_infos))
    paths = [options.configfile, *(match[1] for match in included)]
    # The patterns of [include] may match a file twice, or the main file.
    for path in dict.fromkeys(map(os.path.realpath, filter(None, paths))):
        # A file may have become unreadable after supervisord parsed it.
        with contextlib.suppress(OSError, TypeError), open(path, errors="replace") as file:
            yield file.read()


@contextlib.contextmanager
def _in_section(name: str) -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        raise ClustersError(error.within(f"[rpcinterface:{name}]")) from None
