"""The ZeroMQ relay: from every publisher to every subscriber of the host.

``message``, ``inbox``, ``outbox`` and ``listener`` are pure; ``proxy`` runs in the router process;
``publisher``, ``subscriber`` and ``hearing`` run in workers and other processes that emit,
``green``, ``looped`` and ``threaded`` are the ways in which a subscriber waits. Sessions that move
to another process go on receiving at a ``position``; meanwhile a ``stand_in`` in the router
receives for them.
"""
