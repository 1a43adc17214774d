"""Real servers, one of each kind for all tests, beside the store in memory; and a whole world."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from statistics_backends import NAMES, Backend, MemoryBackend, RedisBackend, server
from statistics_world import World


@pytest.fixture(scope="session", params=NAMES)
def shared_backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    if request.param == "memory":
        yield MemoryBackend()
        return
    with server(request.param, tmp_path_factory.mktemp(request.param)) as running:
        backend = RedisBackend(running.url)
        yield backend
        backend.close()


@pytest.fixture(scope="session", params=NAMES[1:])
def shared_redis(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisBackend]:
    with server(request.param, tmp_path_factory.mktemp(request.param)) as running:
        backend = RedisBackend(running.url)
        yield backend
        backend.close()


@pytest.fixture
def backend(shared_backend: Backend) -> Backend:
    shared_backend.flush()
    return shared_backend


@pytest.fixture
def redis_backend(shared_redis: RedisBackend) -> RedisBackend:
    shared_redis.flush()
    return shared_redis


@pytest.fixture
def world() -> World:
    return World()
