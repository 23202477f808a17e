"""The processes of supervisord that belong to a cluster."""

from __future__ import annotations

from typing import Any, Iterator, Optional, Sequence

from ..common.clusters import CLUSTER, USUAL, NoCluster, choose
from .dispatchers import Supervisord


class Programs:
    """The current processes of one cluster.

    :param cluster: the cluster's name.
    :param clusters: the names of all clusters of supervisord.
    """

    def __init__(
        self, supervisord: Supervisord, cluster: str = USUAL, clusters: Sequence[str] = (USUAL,)
    ) -> None:
        self._supervisord = supervisord
        self.cluster = cluster
        self.clusters = clusters

    def __contains__(self, process: Any) -> bool:
        return self._cluster_of(process) == self.cluster

    def __iter__(self) -> Iterator[Any]:
        for group in self._supervisord.process_groups.values():
            for process in group.processes.values():
                if process in self:
                    yield process

    def elsewhere(self, group: str) -> Optional[str]:
        """The name of another cluster that processes of a group belong to, or ``None``."""
        found = self._supervisord.process_groups.get(group)
        for process in found.processes.values() if found is not None else ():
            cluster = self._cluster_of(process)
            if cluster not in (None, self.cluster):
                return cluster
        return None

    def _cluster_of(self, process: Any) -> Optional[str]:
        try:
            return choose((process.config.environment or {}).get(CLUSTER), self.clusters)
        except NoCluster:
            return None
