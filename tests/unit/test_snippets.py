"""What the documents tell a reader to paste or to type is what the code takes."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from configparser import RawConfigParser
from dataclasses import fields
from pathlib import Path

import pytest

import supervisor_sio
from supervisor_sio import cli
from supervisor_sio.settings import Settings
from supervisor_sio.supervisorctl.grammar import COMMANDS, parse_line

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SETTINGS = {field.name for field in fields(Settings)}
SIO = "rpcinterface:sio"

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)


def blocks(document: Path, language: str) -> Iterator[str]:
    """Without the indentation that they have in lists."""
    pattern = rf"^( *)```{language}\n(.*?)^ *```"
    for indent, text in re.findall(pattern, document.read_text(), re.DOTALL | re.MULTILINE):
        yield re.sub(f"^{indent}", "", text, flags=re.MULTILINE)


def table(document: str, head: str) -> list[str]:
    """The first cells of the table with this first line."""
    rows = re.findall(r"^\|(.*?[^\\])\|", (ROOT / "docs" / document).read_text(), re.MULTILINE)
    at = rows.index(f" {head} ")
    return list(iter_rows(rows[at + 2 :]))


def iter_rows(cells: list[str]) -> Iterator[str]:
    for cell in cells:
        if not cell.strip().startswith("`"):
            return
        yield cell


@each_document
def test_python(document: Path) -> None:
    for text in blocks(document, "python"):
        if "…" in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module == "supervisor_sio":
                names = {alias.name for alias in node.names} - {"examples"}
                assert names <= set(supervisor_sio.__all__), text


@each_document
def test_sections(document: Path) -> None:
    for text in blocks(document, "ini"):
        if not text.lstrip("; \n").startswith("["):
            text = f"[program:x]\n{text}"
        parser = RawConfigParser(inline_comment_prefixes=(" ;",), allow_no_value=True)
        parser.read_string(re.sub(r"^; (?!\w+ = ).*\n", "", text, flags=re.MULTILINE))
        for section in parser.sections():
            options = dict(parser.items(section))
            if section == SIO:
                options.pop("supervisor.rpcinterface_factory", None)
                assert options.keys() - {"…"} <= SETTINGS, text
            command = options.get("command") or ""
            if "supervisor-sio" in command:
                _supervisor_sio(shlex.split(command))


@each_document
def test_commands(document: Path) -> None:
    for text in blocks(document, "sh"):
        for words in _commands(text):
            names = [Path(word).name for word in words]
            if "supervisor-sio" in names and "pip" not in names:
                _supervisor_sio(words)
            elif typed := re.search(r"\bsupervisorctl (?:-\w \S+ )*sio\b(.*)", " ".join(words)):
                parse_line(typed[1])


def _commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", "").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in (*lexer, ";"):
            if set(word) <= set(";&|<>"):
                yield words
                words = []
            else:
                words.append(word)


def _supervisor_sio(words: list[str]) -> None:
    """:raises SystemExit: when the command would refuse it."""
    at = [Path(word).name for word in words].index("supervisor-sio")
    cli._make_parser().parse_args(words[at + 1 :])


def test_each_setting_is_described() -> None:
    cells = table("settings.md", "option")
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == SETTINGS


def test_each_command_is_described_with_its_options() -> None:
    cells = table("commands.md", "command")
    described = {name for cell in cells for name in re.findall(r"`([a-z-]+)", cell)}
    assert described == COMMANDS.keys() - {"help"}
    for name, command in COMMANDS.items():
        row = " ".join(cell for cell in cells if f"`{name}" in cell)
        assert command.options.keys() <= {*re.findall(r"--[a-z-]+", row)}, name
