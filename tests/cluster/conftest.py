"""Every store of tenants and limits, emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tenant_stores
from statistics_backends import NAMES


@pytest.fixture(scope="session", params=NAMES)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tenant_stores.Backend]:
    with tenant_stores.backend(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture
def backend(shared: tenant_stores.Backend) -> tenant_stores.Backend:
    shared.flush()
    return shared
