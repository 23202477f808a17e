"""The router process: ``supervisor-sio router``, run as an event listener.

``request`` (beside this package) judges a request line, ``pool`` knows the
workers and chooses, ``events`` speaks Supervisor's event listener protocol;
these are pure. ``process`` does the I/O.
"""
