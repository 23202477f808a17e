"""What is released says of itself what is so."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import supervisor_sio

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
PACKAGE = ROOT / "supervisor_sio"


def config() -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg")
    return found


def pythons() -> list[str]:
    found = re.findall(r"Python :: (3\.\d+)", config()["metadata"]["classifiers"])
    return sorted(found, key=lambda version: int(version[2:]))


def test_pythons_that_are_named_are_those_that_ci_runs() -> None:
    versions = pythons()
    assert config()["options"]["python_requires"] == f">={versions[0]}"
    assert [int(version[2:]) for version in versions] == list(range(9, 9 + len(versions)))
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    installed = re.findall(r"uv python install (.*)", workflow)[0].split()
    # Debian 12 has this one.
    assert sorted([*installed, "3.11"]) == sorted(versions)


def test_the_changelog_has_this_version_or_says_what_will_be_in_it() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    version = supervisor_sio.__version__
    heads = re.findall(r"^## \[(.*?)\](.*)$", text, re.MULTILINE)
    assert heads[0][0] == "Unreleased"
    released = [head for head, _ in heads[1:]]
    assert version in (released[0] if released else text)
    for _, date in heads[1:]:
        assert re.fullmatch(r" - \d{4}-\d\d-\d\d", date)


def test_formats_that_meet_in_an_upgrade_have_their_numbers_and_tests() -> None:
    text = (ROOT / "docs/versions.md").read_text()
    numbers = re.findall(r"`(\w+)` in `([\w/]+\.py)`", text)
    assert len(numbers) >= 5
    for name, file in numbers:
        assert re.search(rf"^{name} = \d+$", (PACKAGE / file).read_text(), re.MULTILINE), file
    tests = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    assert len(tests) >= 6
    for file, name in tests:
        assert f"\ndef {name}(" in (TESTS / file).read_text(), name
