"""``[ctlplugin:sio]``: the factory that supervisorctl's configuration names."""

from __future__ import annotations

from typing import Any, Optional

from .supervisorctl.plugin import SioControllerPlugin


def make_ctlplugin(controller: Any, **options: Optional[str]) -> SioControllerPlugin:
    """The factory that ``supervisor.ctl_factory`` names."""
    return SioControllerPlugin(controller)
