"""The application of the test clusters, open to the Admin UI."""

from __future__ import annotations

from cluster_app import app as app
from cluster_app import sio

AUTH = {"username": "admin", "password": "secret"}

sio.instrument(auth=AUTH, server_stats_interval=0.2)
