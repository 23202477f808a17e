"""Example applications in the package: a chat with its page."""
