"""Code that runs inside supervisorctl: the commands of ``sio``.

``grammar`` parses the command line, ``commands`` executes it, ``session`` calls supervisord;
``plugin`` and ``completion`` connect it to supervisorctl's shell. ``formatting``, ``tables`` and
``rates`` are pure.
"""
