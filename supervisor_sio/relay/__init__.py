"""The ZeroMQ relay: from every publisher to every subscriber of the host.

``message`` and ``sequence`` are pure; ``proxy`` runs in the router process,
``client`` is the side of workers and of whoever else emits.
"""
