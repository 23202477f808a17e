"""A process beside the cluster that emits in the takeover run: python takeover_writer.py RUN_DIR"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from takeover_app import Emitter

from supervisor_sio import AsyncZmqManager


async def main(run_dir: str) -> None:
    manager = AsyncZmqManager(f"zmq+ipc://{run_dir}", write_only=True)

    async def emit(event: str, data: Any, to: str | None) -> None:
        await manager.emit(event, data, room=to, namespace="/")

    await Emitter(emit).run(asyncio.sleep)
    sys.stdin.read()  # what is asked for again is sent again


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
