"""What the peers need is installed the first time, into a cache directory of the user.

Nothing is installed in the repository.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Callable


def installed(files: Sequence[Path], install: Callable[[Path], None]) -> Path:
    """The directory in which everything is that the files ask for.

    :param files: that pin versions; where they change, or the Python does, it is another directory.
    :param install: gets a directory that has copies of them.
    """
    key = hashlib.sha256(sys.version.encode())
    for file in files:
        key.update(file.read_bytes())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = root / "supervisor-sio-bench" / key.hexdigest()[:16]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as name:
            making = Path(name) / "making"
            making.mkdir()
            for file in files:
                shutil.copy(file, making)
            install(making)
            making.rename(target)
    return target
