"""Joins the relays of several hosts through a message queue (``message_queue``).

``format`` is pure; ``queue`` is the connection to Redis; ``bridge`` stands
between the two, as a thread of the router process.
"""
