"""HTTP, Engine.IO and websockets, without I/O: bytes and the time go in, bytes and events come out.

``http`` reads heads and bodies, ``request`` extracts what Engine.IO needs from a head, ``answers``
builds the responses. ``payload`` reads and writes the bodies of polls and POSTs, ``frames`` the
frames of websockets. ``websocket`` is one websocket, ``session`` one Engine.IO session with its
``outbox`` and its ``post``, ``engine`` all sessions of a server. ``deadlines`` keeps all their
deadlines, ``options`` the options; ``saved`` reads a session's state that another process wrote.
"""
