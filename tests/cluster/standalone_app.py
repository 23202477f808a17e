"""An application that serves itself: ``python standalone_app.py [HOST:PORT]``."""

from __future__ import annotations

import sys

from cluster_app import app

from supervisor_sio import serve

if __name__ == "__main__":
    serve(app, *sys.argv[1:])
