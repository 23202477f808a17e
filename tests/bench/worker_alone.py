"""bench_app on a worker of this package by hand: `python worker_alone.py PORT`."""

from __future__ import annotations

import sys


def main() -> None:
    import eventlet

    eventlet.monkey_patch()

    from bench_app import app

    from supervisor_sio import serve

    serve(app, listen=f"127.0.0.1:{sys.argv[1]}")


if __name__ == "__main__":
    main()
