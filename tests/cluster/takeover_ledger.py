"""What the workers of takeover_app.py have written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .harness import wait_until


class Ledger:
    """The calls of handlers, of all workers, in their order."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def command(self, module: str = "takeover_app", variables: str = "") -> str:
        """Of workers that write it."""
        return f"env HAPPENED={self.path} {variables} supervisor-sio worker {module}:app"

    def all(self) -> list[dict[str, Any]]:
        whole, _, _ = self.path.read_text().rpartition("\n")  # the last one may be half written
        return list(map(json.loads, whole.splitlines()))

    def lines(self, sid: str) -> list[dict[str, Any]]:
        return [line for line in self.all() if line["sid"] == sid] if self.path.exists() else []

    def of(self, sid: str) -> list[str]:
        """The handlers that were called for this client."""
        return [line["what"] for line in self.lines(sid)]

    def expect(self, sid: str, *what: str) -> None:
        """These handlers were called for this client, in this order, and no others: a handler may
        run a moment after what its client notices."""
        wait_until(lambda: len(self.of(sid)) >= len(what), 20, f"{what} of {sid}")
        assert self.of(sid) == list(what)

    def numbers(self, sid: str) -> list[int]:
        """With which those for the event "number" were."""
        return [line["number"] for line in self.lines(sid) if line["what"] == "number"]

    def wait_for(self, sid: str, what: str, timeout: float = 20) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((line for line in self.lines(sid) if line["what"] == what), None)

        line = wait_until(found, timeout, f"{what} of {sid}")
        assert line is not None
        return line


def wait_until_balanced(ledger: Ledger, timeout: float = 30) -> None:
    """Until each client that was connected was disconnected as well, and each once."""

    def unbalanced() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for line in ledger.all():
            if line["what"] in ("connect", "disconnect"):
                found.setdefault(line["sid"], []).append(line["what"])
        return {sid: what for sid, what in found.items() if what != ["connect", "disconnect"]}

    try:
        wait_until(lambda: not unbalanced(), timeout, "balance")
    except AssertionError as error:
        raise AssertionError(f"{error}: {unbalanced()}") from None
