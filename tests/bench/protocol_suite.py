"""The test suite of the Socket.IO protocol against one worker.

    python tests/bench/protocol_suite.py DIRECTORY [--async-mode MODE]

DIRECTORY is `docs/socket.io-protocol/v5-test-suite` of https://github.com/socketio/socket.io; its
packages are installed there. The suite expects the server on port 3000, and runs unchanged, except
that in its Socket.IO cases each websocket answers pings: the suite does not, so that some of its
cases would pass only because a ping was not answered in time. Ends with 1 if a case fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cluster.harness import MODE, Cluster
from cluster.jsclient import find_node, install

PORT = 3000

#: The suite sets the global class from a package.
ANSWERING = """
let used;
Object.defineProperty(globalThis, "WebSocket", {
  configurable: true,
  get: () => used,
  set: (given) => {
    used = class extends given {
      constructor(...args) {
        super(...args);
        this.addEventListener("message", ({ data }) => data === "2" && this.send("3"));
      }
    };
  },
});
"""


def run_suite(suite: Path, node: Path, cases: str, preload: Path | None) -> bool:
    """Whether all cases have passed.

    :param cases: the title of their group.
    """
    environ = {**os.environ, "PATH": f"{node}{os.pathsep}{os.environ['PATH']}"}
    if preload is not None:
        environ["NODE_OPTIONS"] = f"--import {preload.as_uri()}"
    command = ["node_modules/.bin/mocha", "--exit", "--timeout", "5000", "--grep", cases]
    return not subprocess.run([*command, "test-suite.js"], cwd=suite, env=environ).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument(
        "--async-mode", choices=("eventlet", "asyncio", "threading"), default="eventlet"
    )
    options = parser.parse_args()
    os.environ[MODE] = options.async_mode
    node = find_node()
    if node is None:
        parser.error("node is not installed")
    if not (options.directory / "test-suite.js").exists():
        parser.error(f"{options.directory} has no test-suite.js")
    install(node, options.directory)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        preload = directory / "answering.mjs"
        preload.write_text(ANSWERING)
        cluster = Cluster(
            directory,
            workers=1,
            command="supervisor-sio worker suite_app:app",
            here=Path(__file__).parent,
            listen=f"127.0.0.1:{PORT}",
        )
        cluster.port = PORT
        stack.callback(cluster.clean_up)
        cluster.start()
        print(f"{options.async_mode}, each websocket answers pings:", flush=True)
        passed = run_suite(options.directory, node, "Socket.IO protocol", preload)
        print(f"{options.async_mode}, no websocket answers pings:", flush=True)
        return 0 if run_suite(options.directory, node, "Engine.IO protocol", None) and passed else 1


if __name__ == "__main__":
    sys.exit(main())
