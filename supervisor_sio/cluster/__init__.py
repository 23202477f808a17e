"""What runs inside the application: the client manager and what all workers answer together."""
