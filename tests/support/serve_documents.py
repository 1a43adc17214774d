"""A Serve config file that is sound, for tests that spoil it."""

from __future__ import annotations

import copy
from typing import Any


def document() -> dict[str, Any]:
    return copy.deepcopy(
        {
            "http_options": {"host": "127.0.0.1", "port": 8000},
            "applications": [
                {
                    "name": "hedgerow",
                    "route_prefix": "/",
                    "import_path": "deployments.app:build_app",
                    "args": {
                        "target": {"model": "smollm2-135m-instruct"},
                        "drafters": [{"name": "lookup", "kind": "prompt_lookup"}],
                    },
                    "deployments": [
                        {"name": "Ingress", "user_config": {"limits": {"max_choices": 4}}},
                        {
                            "name": "Target",
                            "user_config": {
                                "speculation": "on",
                                "selector": {"name": "rule", "lookups": ["lookup"]},
                            },
                        },
                    ],
                }
            ],
        }
    )


def app(content: dict[str, Any]) -> Any:
    return content["applications"][0]


def target_settings(content: dict[str, Any]) -> Any:
    return app(content)["deployments"][1]["user_config"]
