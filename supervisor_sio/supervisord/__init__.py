"""What runs inside supervisord, where nothing may block and nothing may raise."""
