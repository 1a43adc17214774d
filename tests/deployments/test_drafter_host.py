"""What a host takes from its target, and what it has of its own."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.config import ClusterConfig, HostSection
from deployments.drafter_host import settings_at


@pytest.mark.parametrize(
    ("own", "quantization"),
    [
        ({}, "float16"),
        ({"num_threads": 2}, "float16"),
        ({"dtype": "float32"}, "float16"),
        ({"dtype": "bfloat16"}, None),
        ({"device": "cuda"}, None),
    ],
    ids=str,
)
def test_a_host_holds_weights_as_its_target_where_it_computes_as_its_target(
    own: dict[str, Any], quantization: str | None
) -> None:
    host = HostSection(name="code", **own)
    config = ClusterConfig.model_validate({"target": {"quantization": "float16"}})
    found = settings_at(config, host)
    assert found.quantization == quantization
    assert (found.device, found.dtype) == (host.device, host.dtype or "float32")
