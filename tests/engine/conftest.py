"""What tests of drafters that fail have in common."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Failures that a test provokes are not logged."""
    caplog.set_level(logging.CRITICAL, logger="engine.guarded_drafter")
