"""Links between the documents lead somewhere, and the README is short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def _text(document: Path) -> str:
    """Without what is code."""
    return re.sub(r"^ *```.*?^ *```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)


def _anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _text(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _links(document: Path) -> list[tuple[str, Path, str]]:
    """Those to other documents and headings: as written, file, heading."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", _text(document)):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            found.append((link, (document.parent / path).resolve() if path else document, anchor))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links(document: Path) -> None:
    for link, target, anchor in _links(document):
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_the_readme_is_two_screens() -> None:
    """What is added to it belongs on a page in docs/, which docs/index.md lists."""
    assert len(README.read_text().splitlines()) < 160


def test_each_page_is_two_clicks_from_the_readme() -> None:
    once = {target for _, target, _ in _links(README)}
    twice = {target for page in once if page.suffix == ".md" for _, target, _ in _links(page)}
    pages = {*(ROOT / "docs").rglob("*.md")} - {README}
    assert not pages - once - twice


def test_each_question_of_newcomers_has_its_page() -> None:
    """And the README has a link to the questions, so that an answer is two clicks away."""
    faq = ROOT / "docs" / "faq.md"
    assert faq in {target for _, target, _ in _links(README)}
    answers = re.split(r"^\*\*(?=.*\*\*$)", faq.read_text(), flags=re.MULTILINE)[1:]
    assert len(answers) >= 10
    for answer in answers:
        assert re.search(r"→\s+\[[^]]+\]\([\w/-]+\.md(#[\w-]+)?\)", answer), answer
