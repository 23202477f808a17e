"""Code that runs inside supervisord, where no call may block and no exception may escape.

``cluster`` owns the port, the run directory and the router's channel (``dispatchers``); ``rpc`` is
the XML-RPC namespace ``sio``, ``listeners`` opens the shared port, ``scaling`` adds and removes
processes, ``recycler`` restarts workers that are over a limit, and ``status`` (pure) builds the
status.
"""
