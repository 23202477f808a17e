"""The worker process: serves the connections that the router passes to it.

``service`` is its life, from its start to its end, ``link`` the channel to the router,
``application`` finds ``module:app``. ``eio`` is what python-socketio finds on ``server.eio``,
``dispatch`` calls its handlers, ``compat`` has the names of python-socketio that are not public.
``runtime`` says what runs all of this; ``eventlet`` does.
"""

from .service import serve

__all__ = ["serve"]
