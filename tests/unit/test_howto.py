"""What docs/howto/ tells a reader to paste makes a sound deployment."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from supervisor_sio import AsyncZmqManager, ZmqManager
from unit.check.deployment import BIN, ME, ROOT, Deployment, free_ports
from unit.pythons import NEW_PYTHON
from unit.test_snippets import blocks

__all__ = ["free_ports"]  # a fixture

HOWTO = ROOT / "docs" / "howto"
PAGES = sorted(HOWTO.glob("*.md"))

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)

#: What of a deployment is not there where these tests run, and what only root's supervisord can do.
_ELSEWHERE = re.compile(
    r"/srv/myapp|/var/log/myapp|/etc/ssl|/run/app|: /app is not a directory|"
    + (r"supervisord (that runs )?as (?!root\b)|not as (?!root\b)" if ME else "(?!)")
)


@NEW_PYTHON
@each_page
@pytest.mark.usefixtures("free_ports")
def test_sections_make_a_sound_deployment(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setenv("WORKERS", "2")
    monkeypatch.setenv("SECRET_KEY", "x")
    for text in blocks(page, "ini"):
        pasted = re.sub(r"^;.*\n", "", text, flags=re.MULTILINE).lstrip()
        if "before" in text.partition("\n")[0] or not pasted.startswith("["):
            continue
        deployment = Deployment(tmp_path)
        parser = RawConfigParser(inline_comment_prefixes=(" ;",))
        parser.read_string(pasted)
        if any(
            "supervisor-sio worker" in parser[name].get("command", "") for name in parser.sections()
        ):
            del deployment.sections["program:workers"]
        for name in parser.sections():
            deployment.set(name, **dict(parser.items(name)))
        left = [line for line in deployment.lines() if not _ELSEWHERE.search(line)]
        assert left == [], text


@each_page
def test_managers_have_what_is_called(page: Path) -> None:
    for text in blocks(page, "python"):
        for call in ast.walk(ast.parse(text)) if "…" not in text else ():
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            if isinstance(call.func.value, ast.Name) and call.func.value.id == "manager":
                for kind in (ZmqManager, AsyncZmqManager):
                    signature = inspect.signature(getattr(kind, call.func.attr))
                    given = {keyword.arg for keyword in call.keywords}
                    assert given <= signature.parameters.keys(), text


@pytest.mark.parametrize(
    ("language", "name"),
    [("dockerfile", "Dockerfile"), ("yaml", "compose.yaml"), ("ini", "supervisord.conf")],
)
def test_the_page_on_docker_shows_the_files(language: str, name: str) -> None:
    (block,) = blocks(HOWTO / "docker.md", language)
    assert block == (HOWTO / "docker" / name).read_text()


def test_the_image_has_the_application_of_the_page_on_frameworks() -> None:
    """Its events are the same, so that what a reader has tried by hand runs in the container."""
    tree = ast.parse((HOWTO / "docker" / "myapp.py").read_text())
    shown = ast.parse(next(blocks(HOWTO / "frameworks.md", "python")))
    ours, theirs = (
        [ast.dump(node) for node in each.body if isinstance(node, (ast.Assign, ast.Import))]
        for each in (tree, shown)
    )
    assert ours == theirs


#: Of the page on frameworks: what a program imports, the worker's mode, and the application.
FRAMEWORKS = {
    "from fastapi": ("asyncio", "myapp:app"),
    "from flask": ("threading", "myapp:app"),
    "from django": ("threading", "mysite.wsgi:application"),
}

#: What a Django project has besides.
PROJECT = {
    "mysite/settings.py": "SECRET_KEY = 'x'\nROOT_URLCONF = 'mysite.urls'\n",
    "mysite/urls.py": "urlpatterns = []\n",
    "chat/events.py": "from mysite.wsgi import sio\n\n@sio.event\ndef news(sid): ...\n",
}


@NEW_PYTHON
@pytest.mark.long
def test_workers_would_take_the_programs_for_each_framework(tmp_path: Path) -> None:
    programs = [text for text in blocks(HOWTO / "frameworks.md", "python") if text[:2] == "# "]
    checks = []
    for text in programs:
        path = text[2:].partition("\n")[0]
        word = next(word for word in FRAMEWORKS if word in text)
        mode, application = FRAMEWORKS[word]
        directory = tmp_path / word
        for name, content in {path: text, **(PROJECT if "django" in word else {})}.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(content)
        command = [f"{BIN}/supervisor-sio", "check", "--app", application, "--async-mode", mode]
        checks.append(
            subprocess.Popen(
                command,
                cwd=directory,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    assert len(checks) == 3
    for check in checks:
        said, _ = check.communicate(timeout=60)
        assert check.returncode == 0, said
