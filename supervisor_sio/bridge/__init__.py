"""Joins the relays of several hosts through a message queue (``message_queue``).

``format`` and ``kept`` are pure; ``queue`` is the connection to Redis; ``bridge`` stands
between the two, as a thread of the router process.
"""
