"""What runs inside the application: the client managers of python-socketio.

``core`` is what both have: their options, and their parts. ``manager`` is :class:`.ZmqManager`,
which blocks, ``async_manager`` is :class:`.AsyncZmqManager`. ``emitting`` says whom an emit
reaches, ``clients`` moves and disconnects one client, ``relaying`` is the place on the relay;
``operations`` asks all workers: ``fetching``, ``steering``, ``emit_with_acks`` and
``server_side``, all by ``asking``. ``sessions`` are the Socket.IO servers of the process, which
a worker prepares for clients. ``takeover`` knows whose clients the process has, and ``moving``
saves and restores one: ``environs`` the environment of its handshake, with ``own_objects`` and
``plain``. ``bases`` has python-socketio's managers, ``handlers`` registers functions of the
application. ``members``, ``gathering``, ``scope`` and ``plain`` are pure.
"""
