"""The worker process: serves the connections that the router passes to it.

``service`` starts one of two lives: ``supervised``, with ``link``, the channel to the router
(with ``outgoing``, ``reporting``, and, for sessions that move, ``passing`` and ``arriving``),
or ``alone``, by hand. ``application`` finds ``module:app``. ``connection`` is that of one client,
``server`` all of them. ``eio`` is what python-socketio finds on ``server.eio``, ``dispatch`` calls
its handlers, ``exits`` says which of them has called ``sys.exit()``, ``compat`` has the names of
python-socketio that are not public. ``tracebacks`` and ``few_lines`` keep the log short.
``runtime`` says what all of this needs of a loop; ``modes`` knows the packages that have one.
"""

from .service import serve

__all__ = ["serve"]
