"""Formats with a version, which another process may have written."""

from __future__ import annotations


def other_version(version: int, own: int) -> str:
    """Why it cannot be read; and what to do, where its writer is newer than this process."""
    text = f"version {version} of the format, not {own}"
    return f"{text}: restart this process" if version > own else text
