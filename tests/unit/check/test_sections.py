from __future__ import annotations

import re
from configparser import RawConfigParser
from pathlib import Path

import pytest

from supervisor_sio import cli
from supervisor_sio.check import judge
from supervisor_sio.check.reading import read
from supervisor_sio.check.sections import make_sections
from unit.check.deployment import HOST, ME, NOBODY, ROOT

MINIMAL = """\
[supervisord]
logfile = /dev/null
[unix_http_server]
file = {directory}/s.sock
[supervisorctl]
serverurl = unix://{directory}/s.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""


@pytest.mark.parametrize("workers", [1, 4, 40])
@pytest.mark.parametrize("full", [False, True])
def test_what_init_prints_is_sound(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    full: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat.py").touch()
    listen = f"unix:{tmp_path}/100%.sock"
    words = ["init", "chat:app", "--listen", listen, "--workers", str(workers)]
    assert cli.main([*words, *["--full"] * full]) == 0
    sections = capsys.readouterr().out
    if ME == 0:  # as the comments say
        sections = sections.replace(";chown = root:www-data", f"chown = root:{NOBODY.pw_gid}")
        sections = sections.replace(";chmod", "chmod").replace(";user = www-data", "user = nobody")
        tmp_path.chmod(0o755)
    path = tmp_path / "supervisord.conf"
    path.write_text(sections if full else MINIMAL.format(directory=tmp_path) + sections)
    configuration = read(str(path))
    assert judge(configuration, HOST) == []
    settings = configuration.clusters["sio"]
    assert settings is not None
    assert [str(address) for address in settings.listen] == [listen]
    (program,) = configuration.workers
    assert program.command == "supervisor-sio worker chat:app"
    assert len(program.processes) == workers
    assert ("; --- " in sections) is not full
    if full:
        return
    # And where the comments say that the second part goes.
    main, mark, rest = sections.partition("; --- Below them")
    path.write_text(MINIMAL.format(directory=tmp_path) + main + "[include]\nfiles = sio.conf\n")
    (tmp_path / "sio.conf").write_text(mark + rest)
    assert judge(read(str(path)), HOST) == []


@pytest.mark.parametrize(
    ("mode", "option"),
    [
        ("eventlet", ""),
        ("asyncio", "--async-mode asyncio "),
        ("threading", "--async-mode threading "),
    ],
)
def test_init_for_each_mode(capsys: pytest.CaptureFixture[str], mode: str, option: str) -> None:
    assert cli.main(["init", "--async-mode", mode]) == 0
    out = capsys.readouterr().out
    assert f"command = supervisor-sio worker {option}myapp:app\n" in out
    assert ("--threads" in out) is (mode == "threading")


def test_init_for_one_more_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed sections of both clusters fit into one file, and are sound."""
    monkeypatch.chdir(tmp_path)
    printed = []
    for name in ("chat", "shop"):
        (tmp_path / f"{name}.py").touch()
        words = ["--listen", f"unix:{tmp_path}/{name}.sock", "--cluster", name]
        assert cli.main(["init", f"{name}:app", *words]) == 0
        printed.append(capsys.readouterr().out)
    path = tmp_path / "supervisord.conf"
    path.write_text(MINIMAL.format(directory=tmp_path) + "".join(printed))
    configuration = read(str(path))
    found = judge(configuration, HOST)
    assert [finding for finding in found if "runs as root" not in finding.text] == []
    for name, part in zip(("chat", "shop"), configuration.for_each_cluster()):
        assert {program.section for program in part.programs} == {
            f"eventlistener:{name}",
            f"program:{name}_workers",
        }
        assert {program.cluster for program in part.programs} == {name}


def test_init_has_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init"]) == 0
    out = capsys.readouterr().out
    assert "listen = 127.0.0.1:8000\n" in out
    assert "command = supervisor-sio worker myapp:app\n" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["chat"], "'chat' is not module:app, for example chat:app"),
        (["chat:app x"], "'chat:app x' is not module:app, for example chat:app"),
        (["--listen", "8000"], "'8000' is not host:port, [v6]:port or unix:/path"),
        (["--workers", "0"], "0 workers are too few; give 1 or more"),
        (["--cluster", "a.b"], "'a.b' is not a valid name of a cluster: use a letter, followed by"),
    ],
)
def test_init_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert cli.main(["init", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("supervisor-sio init: error: ")
    assert reason in err


def test_sections_are_parted_as_said() -> None:
    assert make_sections("a:b", "[::1]:80, x:1", 2).count("; --- ") == 2
    assert "listen = [::1]:80, x:1\n" in make_sections("a:b", "[::1]:80,x:1", 2)


def options(text: str) -> dict[str, dict[str, str]]:
    """The options of each section, including those in comments for root."""
    parser = RawConfigParser(inline_comment_prefixes=(" ;",))
    parser.read_string(re.sub(r"^;(?=\w+ = )", "", text, flags=re.MULTILINE))
    return {section: dict(parser.items(section)) for section in parser.sections()}


def test_init_the_readme_and_the_example_agree() -> None:
    blocks = re.findall(r"```ini\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    readme = "".join(block for block in blocks[:2])
    example = "".join(
        re.sub(r"^;command.*\n", "", path.read_text(), flags=re.MULTILINE)
        for path in (ROOT / "conf.d").glob("*.conf")
    )
    printed, full, shown, shipped = (
        options(text)
        for text in (
            make_sections("myapp:app", "0.0.0.0:8000", 4),
            make_sections("myapp:app", "0.0.0.0:8000", 4, full=True),
            readme,
            example,
        )
    )
    assert printed == shown == {section: full[section] for section in printed}
    for section, names in {
        "rpcinterface:sio": ("chown", "chmod"),
        "eventlistener:sio": ("command", "events", "buffer_size", "user"),
        "program:workers": (
            *("process_name", "startsecs", "stopwaitsecs", "redirect_stderr", "user"),
        ),
    }.items():
        for name in names:
            assert printed[section][name] == shipped[section][name], (section, name)
