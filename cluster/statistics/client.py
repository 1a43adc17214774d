"""A Redis client that gives up soon and never repeats a call, from the URL that operators write.

redis://, rediss:// (TLS) and unix:// as redis-py takes them, and for Sentinel
`redis+sentinel://[user:password@]host:port,host:port/service[/database][?options]`, or
`rediss+sentinel://`. Options are redis-py's; `sentinel_username` and `sentinel_password` log in
to the sentinels themselves.
"""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import unquote, urlsplit

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
SENTINEL_PORT = 26379

Options = dict[str, Any]


class UrlError(ValueError):
    """The URL cannot be used; the message says why, and hides the password."""


def connect(url: str, timeout_s: float = 0.05) -> Redis:
    """A client that connects when it is first used.

    `timeout_s` bounds each wait for the server, unless the URL has a `socket_timeout`.
    """
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        raise UrlError(f"{masked(url)}: {scheme!r} is no scheme; one of {', '.join(SCHEMES)}")
    try:
        build = _sentinel_client if scheme.endswith("+sentinel") else _client
        client = build(url, timeout_s)
        client.connection_pool.make_connection()  # opens nothing, but refuses unknown options
    except (ValueError, TypeError, RedisError) as error:
        raise UrlError(f"{masked(url)}: {error}") from error
    return client


def masked(url: str) -> str:
    """The URL as it may be logged: without password and options."""
    head, separator, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    username, colon, _ = login.partition(":")
    hidden = f"{username}{colon and ':***'}{at}"
    return f"{head}{separator}{hidden}{place.partition('?')[0]}"


def _client(url: str, timeout_s: float) -> Redis:
    database = urlsplit(url).path.strip("/")
    if not url.startswith("unix:") and database and not database.isdecimal():
        raise ValueError(f"{database!r} is no database; expected a number")
    return Redis(connection_pool=ConnectionPool(**_strict(parse_url(url), timeout_s)))


def _sentinel_client(url: str, timeout_s: float) -> Redis:
    scheme, _, rest = url.partition("://")  # by hand: there is one host in what urlsplit takes
    authority, _, rest = rest.partition("/")
    path, _, query = rest.partition("?")
    login, _, places = authority.rpartition("@")
    username, _, password = login.partition(":")
    service, _, database = path.strip("/").partition("/")
    if not service:
        raise ValueError("the name of the service is missing after the addresses")
    if database and not database.isdecimal():
        raise ValueError(f"{database!r} is no database; expected a number")
    is_tls = scheme == "rediss+sentinel"
    given = parse_url(f"{'rediss' if is_tls else 'redis'}://-?{query}")
    own = {
        name: given.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in given
    }
    options = _strict(given, timeout_s) | {"ssl": is_tls}
    for name in ("host", "connection_class"):
        options.pop(name, None)
    sentinel = Sentinel(
        [_address(place) for place in places.split(",")],
        sentinel_kwargs=options | own,
        **options,
        username=unquote(username) or None,
        password=unquote(password) or None,
        db=int(database or 0),
    )
    return cast(Redis, sentinel.master_for(unquote(service)))


def _strict(given: Options, timeout_s: float) -> Options:
    timeouts = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    return {
        **timeouts,
        **given,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
        "encoding_errors": "replace",
        "protocol": 2,
    }


def _address(place: str) -> tuple[str, int]:
    parts = urlsplit(f"//{place}")
    if not parts.hostname:
        raise ValueError(f"{place!r} is no address; expected host:port")
    return parts.hostname, parts.port or SENTINEL_PORT
