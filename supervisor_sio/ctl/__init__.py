"""The commands of ``supervisorctl sio``."""
