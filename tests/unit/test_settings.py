from __future__ import annotations

import os
import pwd
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.common.addresses import Address
from supervisor_sio.settings import BALANCE_METHODS, Settings, SettingsError, parse_settings

OPTIONS = list(Settings.__dataclass_fields__)
ME = pwd.getpwuid(os.getuid()).pw_name


def error_of(**options: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse_settings(options)
    return str(caught.value)


def test_defaults() -> None:
    settings = parse_settings({})
    assert settings == Settings()
    assert [str(address) for address in settings.listen] == ["127.0.0.1:8000"]
    assert (settings.balance, settings.path, settings.chmod) == (
        "least-connection",
        ("/socket.io/",),
        0o700,
    )
    assert (settings.hold_timeout, settings.drain_timeout, settings.head_timeout) == (30, 10, 10)
    assert (settings.keepalive_timeout, settings.spread_timeout) == (75, 0.5)
    assert settings.max_memory is settings.max_lifetime is settings.hung_timeout is None
    assert (settings.max_pending, settings.backlog, settings.channel) == (4096, 4096, "socketio")


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("listen", ":80", (Address("0.0.0.0", 80),)),
        (
            "listen",
            "a:1, [::1]:2 ,\nunix:/s,",
            (Address("a", 1), Address("::1", 2), Address(path="/s")),
        ),
        ("balance", "least-connection", "least-connection"),
        ("balance", "round-robin", "round-robin"),
        ("balance", " random ", "random"),
        ("path", "socket.io", ("/socket.io/",)),
        ("path", "/socket.io", ("/socket.io/",)),
        ("path", "/a/b//,game/", ("/a/b/", "/game/")),
        ("path", "/", ("/",)),
        ("path", "/plausch-ü/", ("/plausch-%C3%BC/",)),
        ("path", "/%7Eme/", ("/%7Eme/",)),
        ("run_dir", "/run/app", "/run/app"),
        ("run_dir", "/run/x/../app", "/run/app"),
        ("run_dir", "~/app", os.path.expanduser("~/app")),
        ("chmod", "0770", 0o770),
        ("chmod", "711", 0o711),
        ("chown", f"{os.getuid()}:{os.getgid()}", (os.getuid(), os.getgid())),
        ("hold_timeout", "0", 0.0),
        ("spread_timeout", "8", 8.0),
        ("spread_timeout", "0", 0.0),
        ("drain_timeout", "2.5", 2.5),
        ("head_timeout", "0.1", 0.1),
        ("keepalive_timeout", "650", 650.0),
        ("max_pending", "1", 1),
        ("backlog", "65535", 65535),
        ("proxy_protocol", "off", False),
        ("proxy_protocol", "false", False),
        ("proxy_protocol", "on", True),
        ("access_log", "on", True),
        ("max_memory", "500MB", 500 * 2**20),
        ("max_memory", "2gb", 2 * 2**30),
        ("max_lifetime", "86400", 86400.0),
        ("hung_timeout", "6", 6.0),
        ("event_metrics", "on", True),
        ("tls_certfile", "/etc/../c.pem", "/c.pem"),
        ("channel", "my app", "my app"),
        ("buffer_messages", "1", 1),
        ("buffer_maxbytes", "16MB", 16 * 1024 * 1024),
        ("message_maxbytes", "1KB", 1024),
        ("metrics", "127.0.0.1:9108", Address("127.0.0.1", 9108)),
        ("metrics", " [::1]:1 ", Address("::1", 1)),
        ("metrics", "unix:/run/m.sock", Address(path="/run/m.sock")),
        ("message_queue", "redis://", "redis://"),
        ("message_queue", "rediss://:secret@host:6379/0", "rediss://:secret@host:6379/0"),
        ("message_queue", "unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("message_queue", "redis+sentinel://a,b/0/main", "redis+sentinel://a,b/0/main"),
    ],
)
def test_good_values(option: str, text: str, value: Any) -> None:
    settings = parse_settings({option: text})
    assert getattr(settings, option) == value
    assert type(getattr(settings, option)) is type(value)
    others = set(OPTIONS) - {option}
    assert all(getattr(settings, other) == getattr(Settings(), other) for other in others)


def test_chown_takes_a_name() -> None:
    assert parse_settings({"chown": ME}).chown[0] == os.getuid()


@pytest.mark.parametrize(
    ("option", "text", "reason"),
    [
        ("listen", "", "is empty; give an address such as 127.0.0.1:8000"),
        ("listen", " , ", "is empty; give an address such as 127.0.0.1:8000"),
        ("listen", "8000", "'8000' is not host:port, [v6]:port or unix:/path"),
        ("listen", "a:1,b", "'b' is not host:port, [v6]:port or unix:/path"),
        ("listen", "a:1, a:1", "a:1 is listed twice"),
        ("listen", ":80,0.0.0.0:80", "0.0.0.0:80 is listed twice"),
        ("balance", "fair", "'fair' is not one of least-connection, round-robin, random"),
        ("balance", "Random", "'Random' is not one of least-connection, round-robin, random"),
        ("path", ",", "is empty; give an Engine.IO path such as /socket.io/"),
        ("run_dir", " ", "is empty; give a directory or leave the option out"),
        ("chmod", "rwx", "'rwx' is not an octal mode such as 0700"),
        ("chmod", "0788", "'0788' is not an octal mode such as 0700"),
        ("chmod", "-700", "'-700' is not an octal mode such as 0700"),
        ("chmod", "10700", "'10700' is not an octal mode such as 0700"),
        ("chmod", "0600", "'0600' locks the owner out of the directory; use 07xx"),
        ("chown", "no such user", "'no such user' is not a user or user:group of this host"),
        ("chown", f"{ME}:no such group", f"'{ME}:no such group' is not a user or user:group"),
        ("chown", "", "'' is not a user or user:group of this host"),
        ("hold_timeout", "-1", "'-1' is not a number of seconds from 0 up"),
        ("hold_timeout", "nan", "'nan' is not a number of seconds from 0 up"),
        ("spread_timeout", "-1", "'-1' is not a number of seconds from 0 up"),
        ("spread_timeout", "30", "30 is not below hold_timeout, 30"),
        ("hold_timeout", "inf", "'inf' is not a number of seconds from 0 up"),
        ("drain_timeout", "10s", "'10s' is not a number of seconds from 0 up"),
        ("drain_timeout", "", "'' is not a number of seconds from 0 up"),
        ("head_timeout", "0", "'0' is not a number of seconds from 0.1 up"),
        ("keepalive_timeout", "0", "'0' is not a number of seconds from 1 up"),
        ("keepalive_timeout", "75s", "'75s' is not a number of seconds from 1 up"),
        ("max_pending", "0", "'0' is not a number of connections from 1 up"),
        ("max_pending", "1.5", "'1.5' is not a number of connections from 1 up"),
        ("backlog", "many", "'many' is not a number of connections from 1 up"),
        ("backlog", "2147483648", "'2147483648' is not a number of connections"),
        ("proxy_protocol", "v2", "'v2' is neither on nor off"),
        ("max_memory", "500", "'500' is not a size from 16MB to 1024GB, such as 500MB"),
        ("max_memory", "0", "'0' is not a size from 16MB to 1024GB, such as 500MB"),
        ("max_memory", "1TB", "'1TB' is not a size from 16MB to 1024GB, such as 500MB"),
        ("max_lifetime", "59", "'59' is not a number of seconds from 60 up"),
        ("max_lifetime", "1d", "'1d' is not a number of seconds from 60 up"),
        ("hung_timeout", "5.9", "'5.9' is not a number of seconds from 6 up"),
        ("hung_timeout", "0", "'0' is not a number of seconds from 6 up"),
        ("access_log", "/var/log/x", "'/var/log/x' is neither on nor off"),
        ("tls_certfile", "", "is empty; give a file or leave the option out"),
        ("tls_keyfile", "/k.pem", "needs the option tls_certfile as well"),
        ("buffer_messages", "0", "'0' is not a number of messages from 1 up"),
        ("buffer_maxbytes", "1MB", "1048576 bytes are less than message_maxbytes"),
        ("buffer_maxbytes", "3GB", "'3GB' is not a size from 1KB to 1GB, such as 16MB"),
        ("message_maxbytes", "1023", "'1023' is not a size from 1KB to 1GB, such as 16MB"),
        ("message_maxbytes", "a lot", "'a lot' is not a size from 1KB to 1GB, such as 16MB"),
        ("message_queue", "", "must be a URL whose scheme is one of redis, rediss, unix, redis+"),
        ("message_queue", "redis:", "must be a URL whose scheme is one of redis, rediss"),
        ("message_queue", "amqp://h", "must be a URL whose scheme is one of redis, rediss"),
        ("metrics", "", "is empty; give an address such as 127.0.0.1:9108"),
        ("metrics", "9108", "'9108' is not host:port, [v6]:port or unix:/path"),
        ("metrics", "a:1,b:1", "'a:1,b:1' has more than one address; write one"),
        ("metrics", "127.0.0.1:8000", "127.0.0.1:8000 is in listen too; use another port"),
        ("channel", "", "'' is not a name"),
        ("channel", "a\0b", "'a\\x00b' is not a name"),
    ],
)
def test_bad_values_are_told_in_one_line(option: str, text: str, reason: str) -> None:
    message = error_of(**{option: text})
    assert message.startswith(f"[rpcinterface:sio] {option}: {reason}")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("lisen", "did you mean 'listen'?"),
        ("paths", "did you mean 'path'?"),
        ("hold-timeout", "did you mean 'hold_timeout'?"),
        ("Balance", "did you mean 'balance'?"),
        ("zzz", "docs/settings.md lists the options"),
    ],
)
def test_an_unknown_option(option: str, hint: str) -> None:
    assert error_of(**{option: "x"}) == f"[rpcinterface:sio] {option}: unknown option; {hint}"


def test_one_that_hangs_may_do_so_for_longer_than_a_lifetime() -> None:
    """A hung worker is not ready, so it is not recycled for its age."""
    settings = parse_settings({"max_lifetime": "60", "hung_timeout": "90"})
    assert (settings.max_lifetime, settings.hung_timeout) == (60, 90)


def test_a_password_is_not_repeated() -> None:
    assert "secret" not in error_of(message_queue="amqp://user:secret@host")


def test_an_unknown_option_is_told_before_bad_values() -> None:
    assert "listn: unknown option" in error_of(balance="fair", listn=":80")


@given(st.sampled_from(OPTIONS), st.text(max_size=30))
def test_any_text_is_a_value_or_a_settings_error(option: str, text: str) -> None:
    try:
        parse_settings({option: text})
    except SettingsError as error:
        assert str(error).startswith(f"[rpcinterface:sio] {option}: ")


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        parse_settings({}).balance = BALANCE_METHODS[1]  # type: ignore[misc]
