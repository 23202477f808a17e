"""What runs inside the application: the client manager of python-socketio.

``manager`` is :class:`.ZmqManager`: its options, and its parts. ``emitting`` says whom an emit
reaches, ``clients`` moves and disconnects one client, ``relaying`` is the place on the relay;
``operations`` asks all workers: ``fetching``, ``steering``, ``emit_with_acks`` and
``server_side``, all by ``asking``. ``sessions`` are the Socket.IO servers of the process, which
a worker prepares for clients. ``members`` and ``gathering`` are pure.
"""
