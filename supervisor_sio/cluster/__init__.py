"""What runs inside the application: the client managers of python-socketio.

``core`` has what both share: options and parts. ``manager`` is :class:`.ZmqManager`, which blocks;
``async_manager`` is :class:`.AsyncZmqManager`. ``emitting`` sends events, ``clients`` moves and
disconnects single clients, ``relaying`` connects to the relay; ``operations`` asks all workers:
``fetching``, ``steering``, ``emit_with_acks`` and ``server_side``, all based on ``asking``.
``sessions`` has the Socket.IO servers of the process, which a worker prepares for clients.
``takeover`` knows which tags' clients the process has, and ``moving`` saves and restores a client:
``environs`` the environment of its handshake, with ``own_objects`` and ``plain``. ``recovery`` lets
lost clients come back. ``bases`` has python-socketio's managers, ``handlers`` registers functions
of the application. ``members``, ``gathering``, ``scope`` and ``plain`` are pure.
"""
