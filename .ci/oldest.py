"""The oldest versions that setup.cfg allows, as constraints for pip.

python .ci/oldest.py >constraints.txt
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from pathlib import Path

#: Name, extras and lower bound, as in ``python-socketio[client]>=5.18``.
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)")

#: Supervisor 4.2.5 imports pkg_resources; setuptools has none since version 82.
ALSO = ["setuptools<82"]


def constraints(text: str) -> Iterator[str]:
    """Each once: the extra ``test`` has requirements of others."""
    config = configparser.ConfigParser()
    config.read_string(text)
    extras = dict(config["options.extras_require"])
    required = "\n".join((config["options"]["install_requires"], *extras.values()))
    yield from dict.fromkeys(
        f"{name}=={version}" for name, version in REQUIREMENT.findall(required)
    )
    yield from ALSO


if __name__ == "__main__":
    setup_cfg = Path(__file__).resolve().parent.parent / "setup.cfg"
    print("\n".join(constraints(setup_cfg.read_text())))
