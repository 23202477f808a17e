"""``[ctlplugin:sio]``: the name that stands in supervisorctl's configuration."""

from __future__ import annotations

from typing import Any, Optional

from .supervisorctl.plugin import SioControllerPlugin


def make_ctlplugin(controller: Any, **options: Optional[str]) -> SioControllerPlugin:
    """The factory that ``supervisor.ctl_factory`` names."""
    return SioControllerPlugin(controller)
