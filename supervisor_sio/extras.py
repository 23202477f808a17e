"""Packages that only some options need."""

from __future__ import annotations

import importlib.util

from .settings import Settings, SettingsError


def check_extras(settings: Settings) -> None:
    """Look for the packages, without importing them: that takes time, and memory.

    :raises SettingsError: when one is missing.
    """
    if settings.metrics and not importlib.util.find_spec("prometheus_client"):
        raise SettingsError(
            "metrics", "needs the prometheus_client package: pip install 'supervisor-sio[metrics]'"
        )
