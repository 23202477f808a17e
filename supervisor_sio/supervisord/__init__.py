"""What runs inside supervisord, where nothing may block and nothing may raise.

``cluster`` is what supervisord holds, ``rpc`` the XML-RPC namespace ``sio``, ``dispatchers`` the
channel to the router, ``listeners`` the shared port, ``scaling`` adds and removes processes,
``recycler`` restarts those that are over a limit, ``status`` is pure.
"""
