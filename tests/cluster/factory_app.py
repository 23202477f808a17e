"""The application of cluster_app.py, by a factory that wants to be told something."""

from __future__ import annotations

from typing import Any

import cluster_app


def create_app(stage: str, debug: bool = True) -> Any:
    assert (stage, debug) == ("production", False)
    return cluster_app.app
