"""The worker process: serves the connections that the router passes to it.

``service`` runs a worker in one of two ways: ``supervised``, with ``link``, the channel to the
router (and its parts ``outgoing``, ``reporting``, and, for moving sessions, ``passing`` and
``arriving``), or ``alone``, when started by hand. ``application`` imports ``module:app``.
``connection`` is one client connection, ``server`` holds all of them. ``eio`` is the object that
python-socketio finds on ``server.eio``, ``dispatch`` calls the handlers, ``exits`` describes a
``sys.exit()`` in one, ``compat`` has the private names of python-socketio in use. ``tracebacks``
and ``few_lines`` keep the log short. ``runtime`` is the interface of a loop; ``modes`` selects the
package that implements it.
"""

from .service import serve

__all__ = ["serve"]
