"""The broker that socketio.ZmqManager asks for: `python stock_broker.py SINK SOURCE`, two ports."""

from __future__ import annotations

import sys

import zmq


def main() -> None:
    context = zmq.Context()
    sink, source = context.socket(zmq.PULL), context.socket(zmq.PUB)
    sink.bind(f"tcp://127.0.0.1:{sys.argv[1]}")
    source.bind(f"tcp://127.0.0.1:{sys.argv[2]}")
    zmq.proxy(sink, source)


if __name__ == "__main__":
    main()
