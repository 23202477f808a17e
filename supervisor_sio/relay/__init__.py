"""The ZeroMQ relay: from every publisher to every subscriber of the host.

``message``, ``inbox``, ``outbox`` and ``listener`` are pure; ``proxy`` runs in the router process;
``publisher``, ``subscriber`` and ``hearing`` are the side of workers and of whoever else emits,
``green``, ``looped`` and ``threaded`` how a subscriber waits. Sessions that go to another process
hear on at a ``position``; in the router, a ``stand_in`` hears for them meanwhile.
"""
