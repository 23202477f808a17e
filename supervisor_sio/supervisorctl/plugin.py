"""The plugin that adds ``sio`` to supervisorctl: its commands, their help and completion."""

from __future__ import annotations

from typing import Any

from supervisor.supervisorctl import ControllerPluginBase

from . import commands, completion
from .grammar import COMMANDS


class SioControllerPlugin(ControllerPluginBase):  # type: ignore[misc]
    """Commands of the cluster, in supervisorctl's shell and on its command line."""

    name = "sio"

    def __init__(self, controller: Any) -> None:
        super().__init__(controller)
        # `help sio` calls every plugin, and the others would print that they do not know it.
        for plugin in controller.options.plugins:
            for topic in _TOPICS:
                setattr(plugin, f"help_{topic}", lambda: None)
        completion.install(controller)

    def do_help(self, argument: str) -> None:
        if argument in _TOPICS:
            self.do_sio(argument.replace("sio", "help", 1))
        elif not argument:  # other topics are for the other plugins
            super().do_help(argument)

    def do_sio(self, argument: str) -> None:
        """Run a command of ``sio``."""
        commands.run(self.ctl, argument)


#: The topics of ``help``.
_TOPICS = ["sio", *(f"sio {name}" for name in COMMANDS)]
