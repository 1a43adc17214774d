"""Every test that asks for `overlay` runs once for each of them."""

from __future__ import annotations

import pytest
from manifests import OVERLAYS, Rendered, rendered


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Rendered:
    return rendered(request.param)
