from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
import redis

from supervisor_sio.common.redis_client import (
    ClusterAddress,
    QueueError,
    make_client,
    without_password,
)


def connection(client: Any) -> dict[str, Any]:
    options: dict[str, Any] = client.connection_pool.connection_kwargs
    return options


@pytest.mark.parametrize(
    ("url", "expected", "shown"),
    [
        ("redis://", {}, "redis://"),
        (
            "redis://user:se%2Fcret@host:1234/5",
            {"host": "host", "port": 1234, "db": 5, "username": "user", "password": "se/cret"},
            "redis://host:1234/5",
        ),
        ("redis://:p@ss@host", {"host": "host", "password": "p@ss"}, "redis://host"),
        ("redis://host?password=secret", {"password": "secret"}, "redis://host"),
        (
            "rediss://user:secret@host:1/0?ssl_cert_reqs=none",
            {"host": "host", "ssl_cert_reqs": "none", "password": "secret"},
            "rediss://host:1/0",
        ),
        ("unix:///run/r@dis.sock", {"path": "/run/r@dis.sock"}, "unix:///run/r@dis.sock"),
        (
            "unix://user:secret@/run/redis.sock?db=3",
            {"path": "/run/redis.sock", "db": 3, "username": "user", "password": "secret"},
            "unix:///run/redis.sock",
        ),
    ],
)
def test_urls(url: str, expected: dict[str, Any], shown: str) -> None:
    options = connection(make_client(url))
    assert {**options, **expected} == options
    assert options["socket_timeout"] == 5.0
    # By PING, which a Redis that cannot save its data refuses.
    assert not options.get("health_check_interval")
    assert without_password(url) == shown


def test_only_rediss_is_encrypted() -> None:
    assert make_client("rediss://h").connection_pool.connection_class is redis.SSLConnection
    assert make_client("redis://h").connection_pool.connection_class is redis.Connection


def test_nothing_is_published_twice_by_itself() -> None:
    retry = connection(make_client("redis://h"))["retry"]
    fail = Mock(side_effect=redis.ConnectionError)
    with pytest.raises(redis.ConnectionError):
        retry.call_with_retry(fail, lambda error: None)
    assert fail.call_count == 1


def test_sentinels() -> None:
    url = "redis+sentinel://user:secret@one:26379,two:26380/2/mymaster"
    client = make_client(url)
    pool = client.connection_pool
    assert pool.service_name == "mymaster"
    options = connection(client)
    assert (options["username"], options["password"], options["db"]) == ("user", "secret", 2)
    sentinels = [connection(sentinel) for sentinel in pool.sentinel_manager.sentinels]
    assert [(s["host"], s["port"]) for s in sentinels] == [("one", 26379), ("two", 26380)]
    assert [s["socket_timeout"] for s in sentinels] == [5.0, 5.0]
    assert without_password(url) == "redis+sentinel://one:26379,two:26380/2/mymaster"


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
@pytest.mark.parametrize("encrypted", [False, True])
def test_clusters(scheme: str, encrypted: bool) -> None:
    url = f"{scheme}{'s' * encrypted}+cluster://user:se%2Fcret@one:7000,two,[::1]:7002/0"
    cluster = make_client(url)
    assert isinstance(cluster, ClusterAddress)
    assert cluster.nodes == [("one", 7000), ("two", 6379), ("::1", 7002)]
    options = cluster.options
    assert (options["username"], options["password"]) == ("user", "se/cret")
    assert options.get("ssl", False) is encrypted
    assert without_password(url) == url.replace("user:se%2Fcret@", "")
    assert "cret" not in repr(cluster) and "7000" in repr(cluster)


def test_a_cluster_without_a_password() -> None:
    cluster = make_client("redis+cluster://one")
    assert "username" not in cluster.options and "password" not in cluster.options


def test_valkey_is_spoken_to_as_redis() -> None:
    assert connection(make_client("valkey://user:secret@host:1/2"))["host"] == "host"
    assert make_client("valkeys://h").connection_pool.connection_class is redis.SSLConnection
    client = make_client("valkey+sentinel://one:26379/2/mymaster")
    assert client.connection_pool.service_name == "mymaster"


def test_a_host_or_a_user_may_be_called_valkey() -> None:
    assert connection(make_client("redis://valkey:6379/0"))["host"] == "valkey"
    assert connection(make_client("redis://cache-valkey:1"))["host"] == "cache-valkey"
    assert connection(make_client("valkeys://valkeys:1"))["host"] == "valkeys"
    assert connection(make_client("redis://valkey:valkey+@host"))["username"] == "valkey"
    assert make_client("redis+cluster://valkey:1").nodes == [("valkey", 1)]
    pool = make_client("redis+sentinel://valkey:1/0/mymaster").connection_pool
    assert [connection(one)["host"] for one in pool.sentinel_manager.sentinels] == ["valkey"]


@pytest.mark.parametrize("path", ["", "/", "/0", "/0/"])
def test_sentinels_need_a_service(path: str) -> None:
    with pytest.raises(QueueError) as caught:
        make_client(f"redis+sentinel://user:secret@one:26379{path}")
    assert str(caught.value) == (
        "the service is missing: write redis+sentinel://host:port,host:port/db/service"
    )


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "Redis URL must specify one of the following schemes"),
        ("localhost:6379", "Redis URL must specify"),
        ("amqp://user:secret@host", "Redis URL must specify"),
        ("redis://user:secret@host:port", "'port'"),
        ("redis://user:secret@host?socket_timeout=x", "socket_timeout"),
        ("redis+sentinel://user:secret@one/0/service", "not enough values"),
        ("redis+sentinel://user:secret@one:x/0/service", "'x'"),
        ("redis+sentinel://user:secret@one:1/x/service", "'x'"),
        ("redis://user:secret\n@host:\nport", ""),
        ("redis+cluster://user:secret@", "a node has no host"),
        ("redis+cluster://user:secret@one:1,", "a node has no host"),
        ("redis+cluster://user:secret@one:x", "'x'"),
        ("redis+cluster://user:secret@one:1/5", "has database 0 only"),
        ("redis+cluster://user:secret@one:1?db=0", "take path and options out"),
    ],
)
def test_urls_that_are_not_understood(url: str, reason: str) -> None:
    with pytest.raises(QueueError) as caught:
        make_client(url)
    text = str(caught.value)
    assert text.startswith("the URL is not understood: ") and reason in text
    assert "secret" not in text and "\n" not in text


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:sec/ret@host",
        "redis://user:12/secret@host",
        "redis://user:sec#ret@host",
        "redis://user:1#secret@host",
        "redis://user:sec/r'et@host",
        "redis+sentinel://user:sec/ret@one:1/0/service",
    ],
)
def test_a_password_with_special_characters_is_not_shown(url: str) -> None:
    with pytest.raises(QueueError) as caught:
        make_client(url)
    assert str(caught.value) == (
        "the URL is not understood: special characters in a user or password must be written as %xx"
    )


def test_brackets_in_a_password() -> None:
    """Older Pythons accept them."""
    try:
        options = connection(make_client("redis://user:[secret]@host"))
    except QueueError as error:
        assert "secret" not in str(error) and "must be written as %xx" in str(error)
    else:
        assert options["password"] == "[secret]"


def test_no_queue_has_no_url() -> None:
    assert without_password("") == ""
