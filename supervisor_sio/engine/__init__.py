"""Protocols without I/O: bytes in; what they mean, or what is wrong with them, out."""
