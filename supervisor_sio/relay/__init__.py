"""The ZeroMQ relay: from every publisher to every subscriber of the host.

``message``, ``inbox`` and ``outbox`` are pure; ``proxy`` runs in the router process;
``publisher`` and ``subscriber`` are the side of workers and of whoever else emits,
``green``, ``looped`` and ``threaded`` how a subscriber waits.
"""
