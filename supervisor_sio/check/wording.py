"""Rephrase error texts of Supervisor and configparser."""

from __future__ import annotations

import configparser
import difflib
import re
from typing import Iterable, Mapping

from supervisor.events import EventTypes

from ..settings import PERCENT

#: The value, which may contain any characters, comes before the name of its option.
_CANNOT_EXPAND = re.compile(
    r"Format string .* for '([^']*)' (?:contains names|is badly formatted)", re.DOTALL
)


def describe(filename: str, error: configparser.Error) -> str:
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"{filename}, line {error.lineno}: no [section] before {error.line.strip()!r}"
    if isinstance(error, configparser.ParsingError) and error.errors:
        number, line = error.errors[0]
        return (
            f"{filename}, line {number}: neither a section, an option nor a comment: {line.strip()}"
        )
    return f"{filename}: {' '.join(str(error).split())}"


def option_in(message: str, sections: Mapping[str, Iterable[str]]) -> tuple[str, str]:
    """The section and option in Supervisor's error that a value cannot be expanded, else empty.

    :param sections: the options of each section.
    """
    match = _CANNOT_EXPAND.match(message)
    for section, options in sections.items() if match else ():
        for option in options:
            # Supervisor names some options with their section.
            if match and match.group(1) in (f"{section}.{option}", option):
                return section, option
    return "", ""


def in_plain_words(message: str) -> str:
    """Rephrase an error in one line, without the file and section, which the finding has."""
    text = " ".join(message.split())
    text = re.sub(r" in section '[^']*' \(file: '[^']*'\)$", "", text)
    text = re.sub(r"^\[[^]]*\] (section )?", "", text)
    match = re.search(r"contains names \('(.*?)'\) which cannot be expanded", text)
    if match:
        name = match.group(1)
        if name.startswith("ENV_"):
            return (
                f"%({name})s: {name[4:]} is not in this environment; run the check in the "
                "environment that supervisord has"
            )
        instead = "a percent sign as %%"
        if name == "here":
            instead = "the directory itself"
        return f"supervisord has no %({name})s for this; write {instead}"
    if text.startswith("Format string"):
        # The value may contain a password.
        return f"supervisord does not understand what follows a percent sign; {PERCENT}"
    match = re.fullmatch(r"invalid literal for int\(\) with base 10: (.*)", text)
    if match:
        return f"{match.group(1)} is not a whole number"
    match = re.match(r"Unknown event type (\S+)", text)
    if match:
        names = [name for name in vars(EventTypes) if name.isupper()]
        close = difflib.get_close_matches(match.group(1), names, n=1)
        hint = f"did you mean {close[0]}?" if close else "see Supervisor's list of event types"
        return f"{match.group(1)} is not an event; {hint}"
    if "%(process_num) must be present" in text:
        return (
            "more than one process needs a name for each; write "
            "process_name = %(program_name)s_%(process_num)02d"
        )
    return text
