"""The router process: ``supervisor-sio router``, run as an event listener.

``process`` connects the parts. ``acceptor`` accepts a connection, ``entrance`` (with ``readable``,
``proxy_protocol`` and ``tls``) reads its request line, ``placement`` (with ``pool``, which chooses
the worker, and ``waiting``) places it, and a ``worker_channel`` (with ``tallies``) hands it over;
``workers`` has all worker channels. ``held`` (with ``held_group``) holds the sessions that a worker
has passed on, until another worker adopts them; ``stand_ins`` listens to the relay for them.
``shelf`` and ``held_shelf`` keep waiting connections and held sessions for the next router if this
process dies. ``listener`` (with ``events``) and ``supervisord`` are the connections to supervisord:
``commands`` executes its commands, ``report`` makes its figures, and ``exporter`` those for
Prometheus. ``events``, ``pool``, ``membership``, ``held_group``, ``worker_messages``, ``silence``,
``proxy_protocol``, ``health``, ``sums`` and ``reserve`` are pure.
"""
