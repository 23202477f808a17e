from __future__ import annotations

import pytest

from supervisor_sio.supervisorctl.grammar import COMMANDS, Line, UsageError, format_help, parse_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", Line(COMMANDS["status"])),
        ("--json", Line(COMMANDS["status"], json=True, rest="--json")),
        ("  top  ", Line(COMMANDS["top"])),
        (
            "sockets --room red --limit 5 --json",
            Line(
                COMMANDS["sockets"],
                options={"--room": "red", "--limit": "5"},
                json=True,
                rest="--room red --limit 5 --json",
            ),
        ),
        (
            'sockets --room "my room" --namespace=chat',
            Line(
                COMMANDS["sockets"],
                options={"--room": "my room", "--namespace": "chat"},
                rest='--room "my room" --namespace=chat',
            ),
        ),
        ("drain a:b c", Line(COMMANDS["drain"], ["a:b", "c"], rest="a:b c")),
        ("scale workers -1", Line(COMMANDS["scale"], ["workers", "-1"], rest="workers -1")),
        ('drain "--json"', Line(COMMANDS["drain"], ["--json"], rest='"--json"')),
        ('emit x "a --help"', Line(COMMANDS["emit"], rest='x "a --help"')),
        ("--help", Line(COMMANDS["help"])),
        ("kick --help", Line(COMMANDS["help"], ["kick"])),
        ("kick x -h", Line(COMMANDS["help"], ["kick"])),
        ("emit --help", Line(COMMANDS["help"], ["emit"])),
        (
            "reload a:b --surge c",
            Line(COMMANDS["reload"], ["a:b", "c"], {"--surge": ""}, rest="a:b --surge c"),
        ),
        ("help top", Line(COMMANDS["help"], ["top"], rest="top")),
        ("--cluster shop", Line(COMMANDS["status"], cluster="shop")),
        (" --cluster=shop  kick x", Line(COMMANDS["kick"], ["x"], rest="x", cluster="shop")),
        (
            "--cluster  shop emit x --cluster",
            Line(COMMANDS["emit"], rest="x --cluster", cluster="shop"),
        ),
        (
            "--cluster shop --json",
            Line(COMMANDS["status"], json=True, rest="--json", cluster="shop"),
        ),
    ],
)
def test_what_is_typed(text: str, line: Line) -> None:
    assert parse_line(text) == line


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("worker", "unknown command: sio worker, did you mean sio workers?"),
        ("soket --json", "unknown command: sio soket, did you mean sio sockets?"),
        ("qqq", "unknown command: sio qqq, see: help sio"),
        ("status now", "unexpected argument now; usage: sio status [--json]"),
        ("kick", "sio kick needs SID"),
        ("kick a b", "unexpected argument b; usage: sio kick SID [--namespace NAMESPACE] [--json]"),
        ("scale workers", "sio scale needs GROUP N|+N|-N|max"),
        ("rooms --namspace /x", "unknown option --namspace, did you mean --namespace?"),
        ("rooms --qqq", "unknown option --qqq; usage: sio rooms [--namespace NAMESPACE] [--json]"),
        (
            "reload --surge=2",
            "--surge takes no value; usage: sio reload [NAME ...] [--surge] [--json]",
        ),
        ("rooms --namespace", "--namespace needs a value"),
        ("rooms --namespace=", "--namespace needs a value"),
        ('kick "abc', 'a quote without its end: "abc'),
        ("--cluster", "--cluster needs the name of a cluster"),
        ("--cluster= status", "--cluster needs the name of a cluster"),
        ("reload --cluster shop", "--cluster comes first: sio --cluster NAME reload"),
    ],
)
def test_mistakes_are_told_in_one_line(text: str, error: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_line(text)
    assert str(caught.value) == error


def test_a_namespace_has_its_slash() -> None:
    assert parse_line("rooms").namespace == "/"
    assert parse_line("rooms --namespace chat").namespace == "/chat"
    assert parse_line("rooms --namespace /chat").namespace == "/chat"


def test_help_fits_and_names_every_command_and_option() -> None:
    overview = format_help([])
    assert len(overview) == len(COMMANDS) + 1 and overview[-1].startswith("sio --cluster NAME ")
    for line, (name, command) in zip(overview, COMMANDS.items()):
        assert line.startswith(f"sio {name}") and command.summary in line
        lines = format_help([name])
        assert lines[0].startswith(f"usage: sio {name}")
        assert command.summary in " ".join(lines)
        for option in command.options:
            assert option in " ".join(lines)
        assert max(map(len, lines)) < 80
    assert max(map(len, overview)) < 80
    with pytest.raises(UsageError, match="did you mean sio drain"):
        format_help(["drian"])


def test_an_option_and_its_value_stay_together() -> None:
    assert format_help(["emit"])[:2] == [
        "usage: sio emit EVENT [JSON ...] [--room ROOM] [--namespace NAMESPACE]",
        "       [--to SID] [--json]",
    ]
