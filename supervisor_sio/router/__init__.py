"""The router process: ``supervisor-sio router``, run as an event listener.

``process`` connects the parts. A client comes from ``acceptor``, goes through ``entrance``
(with ``readable``, ``proxy_protocol`` and ``tls``) and ``placement`` (with ``pool``, which chooses,
and ``waiting``), and a ``worker_channel`` (with ``tallies``) hands it over; ``workers`` has all of
these. ``held`` (with ``held_group``) has the sessions that a worker has passed on, until another
adopts them; ``stand_ins`` listens to the relay for them. ``shelf`` keeps those who wait when the
process dies, ``held_shelf`` what is held. supervisord is behind ``listener`` (with ``events``) and
``supervisord``: ``commands`` does what it asks, ``report`` says what it is told, ``exporter`` the
same for Prometheus. ``events``, ``pool``, ``membership``, ``held_group``, ``worker_messages``,
``silence``, ``proxy_protocol``, ``health``, ``sums`` and ``reserve`` are pure.
"""
