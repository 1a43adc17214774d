"""The table of Ray's configuration keys against Ray itself."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel
from ray.serve import config, schema

from cluster.ray_keys import OPEN, RAY_KEYS


def ray_model(name: str) -> type[BaseModel]:
    found = getattr(schema, name, None) or getattr(config, name)
    assert isinstance(found, type)
    assert issubclass(found, BaseModel)
    return found


@pytest.mark.parametrize("name", RAY_KEYS)
def test_our_table_has_exactly_ray_s_keys(name: str) -> None:
    assert set(RAY_KEYS[name]) == set(ray_model(name).model_fields)


@pytest.mark.parametrize("name", RAY_KEYS)
def test_every_nested_model_of_ray_is_followed(name: str) -> None:
    for key, field in ray_model(name).model_fields.items():
        words = set(re.findall(r"\w+", str(field.annotation)))
        nested = [known for known in RAY_KEYS if known in words]
        if key == "autoscaling_policy":  # a plain dict there, read as an AutoscalingPolicy
            nested = ["AutoscalingPolicy"]
        assert RAY_KEYS[name][key] == (nested[0] if nested else OPEN), key
