"""bench_app on a stock eventlet WSGI server: `python stock_worker.py PORT`."""

from __future__ import annotations

import sys

#: eventlet's default is 1024, too few for the benches with many clients.
MOST_CONNECTIONS = 16384


def main() -> None:
    import eventlet.wsgi

    eventlet.monkey_patch()

    from bench_app import app

    listener = eventlet.listen(("127.0.0.1", int(sys.argv[1])), backlog=4096)
    eventlet.wsgi.server(listener, app, log_output=False, max_size=MOST_CONNECTIONS)


if __name__ == "__main__":
    main()
