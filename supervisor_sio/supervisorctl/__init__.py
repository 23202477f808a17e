"""What runs inside supervisorctl: the commands of ``sio``."""
