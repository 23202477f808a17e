"""Joins the relays of several hosts through a message queue (``message_queue``).

``format`` is pure. ``stream`` is what this host sends to the others, in the files of
``stream_file``; ``queue`` publishes and subscribes, at what ``brokers`` connects it to; ``bridge``
stands between them and the relay, in threads of the router process.
"""
