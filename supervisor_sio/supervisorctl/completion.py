"""Completion with TAB after ``sio`` in supervisorctl's shell."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Optional

from ..common.clusters import USUAL
from .grammar import CLUSTER_OPTION, COMMANDS
from .session import clusters_in


def candidates(
    words: list[str],
    text: str,
    list_workers: Callable[[str], list[str]],
    list_clusters: Callable[[], list[str]],
) -> Optional[list[str]]:
    """The completions of ``text`` after ``words``.

    :param list_workers: returns the names of all workers of a cluster; called only if needed.
    :param list_clusters: returns the names of all clusters.
    :returns: ``None`` when the line is not a ``sio`` command.
    """
    if words[:1] == ["help"] and words[1:2] == ["sio"]:
        words = ["sio", "help", *words[2:]]
    if words[:1] != ["sio"]:
        return None
    words, cluster = words[1:], USUAL
    if words[:1] == [CLUSTER_OPTION]:
        if len(words) == 1:
            return [f"{name} " for name in list_clusters() if name.startswith(text)]
        words, cluster = words[2:], words[1]
    possible = _possible(words, text, lambda: list_workers(cluster))
    return [f"{word} " for word in possible if _fits(word, text)]


def _fits(word: str, text: str) -> bool:
    # Options are offered only after a dash.
    return word.startswith(text) and (text != "" or not word.startswith("--"))


def _possible(words: list[str], text: str, list_workers: Callable[[], list[str]]) -> Iterable[str]:
    if not words:
        return [*COMMANDS, CLUSTER_OPTION]
    command = COMMANDS.get(words[0])
    if command is None or command.options.get(words[-1]):
        return ()
    if text.startswith("-"):
        return [*command.options, "--json", "--help"]
    given = [word for word in words[1:] if not word.startswith("--")]
    if command.completes == "commands":
        return () if given else COMMANDS
    if command.completes == "groups":
        return () if given else _groups(list_workers())
    if command.completes == "workers":
        names = list_workers()
        groups = [f"{group}:*" for group in _groups(names)]
        return [name for name in (*names, *groups) if name not in given]
    return ()


def _groups(workers: list[str]) -> list[str]:
    return sorted({worker.partition(":")[0] for worker in workers})


def install(controller: Any) -> None:
    """Add completion of our commands to the controller.

    Supervisor does not ask plugins for completions, so this wraps the controller's method, on this
    instance, before ``cmdloop`` passes it to readline.
    """
    others = controller.complete
    offered: Optional[list[str]] = None

    def list_workers(cluster: str) -> list[str]:
        workers = controller.get_server_proxy(cluster).getStatus()["workers"]
        return [worker["name"] for worker in workers]

    def list_clusters() -> list[str]:
        return clusters_in(controller.get_server_proxy("system").listMethods())

    def complete(text: str, state: int, line: Optional[str] = None) -> Optional[str]:
        nonlocal offered
        if state == 0:  # readline asks for each completion in turn, with the same line
            before = line
            if before is None:
                import readline

                before = readline.get_line_buffer()[: readline.get_endidx()]
            before = before[: len(before) - len(text)]
            offered = candidates(before.split(), text, list_workers, list_clusters)
        if offered is None:
            answer: Optional[str] = others(text, state, line)
            return answer
        return offered[state] if state < len(offered) else None

    controller.complete = complete
