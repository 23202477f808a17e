"""HTTP, Engine.IO and websockets, without I/O: bytes and the time go in, bytes and events come out.

``http`` reads heads and bodies, ``request`` finds in one what Engine.IO needs, ``answers`` makes
the answers. ``payload`` and ``frames`` read and write the bodies of polls and POSTs, and the
frames of websockets. ``websocket`` is one websocket, ``session`` one Engine.IO session with its
``outbox`` and its ``post``, ``engine`` all sessions of a server. ``deadlines`` has the time of all
of them, ``options`` the options; ``saved`` reads a session's state that another process wrote.
"""
