"""What runs inside supervisorctl: the commands of ``sio``.

``grammar`` reads what is typed, ``commands`` does it, ``session`` asks supervisord; ``plugin`` and
``completion`` are the place in supervisorctl's shell. ``formatting``, ``tables`` and ``rates`` are
pure.
"""
