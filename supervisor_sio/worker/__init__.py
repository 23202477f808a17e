"""The worker process: an eventlet WSGI server that the router feeds.

``link`` is the channel to the router, ``http`` serves one connection,
``service`` is the life of the worker from ready to drained, ``application``
finds ``module:app``.
"""

from .service import serve

__all__ = ["serve"]
