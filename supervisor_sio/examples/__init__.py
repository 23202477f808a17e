"""Examples that come with the package: a chat, page and app."""
