"""Joins the relays of several hosts through a message queue (``message_queue``).

``format`` is pure. ``stream`` has this host's messages to the others, in the files of
``stream_file``; ``queue`` publishes and subscribes, at a Redis of ``brokers``; ``bridge`` connects
both with the relay, in threads of the router process.
"""
