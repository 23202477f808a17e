"""The fixtures of tests/cluster: real supervisords, workers and clients."""

from __future__ import annotations

from cluster.conftest import (
    clients,
    cluster,
    make_cluster,
    make_module_cluster,
    module_clients,
    node,
    pytest_runtest_makereport,
    shared_cluster,
)

__all__ = [
    "clients",
    "cluster",
    "make_cluster",
    "make_module_cluster",
    "module_clients",
    "node",
    "pytest_runtest_makereport",
    "shared_cluster",
]
