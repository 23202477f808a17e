"""The runtime on eventlet: connections in callbacks of its hub, handlers in greenlets."""
