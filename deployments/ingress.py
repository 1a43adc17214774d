"""An ingress replica: HTTP in front of the target. Loads the tokenizer, never torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from cluster.config import ClusterConfig, IngressSettings
from deployments.gateway import Gateway
from deployments.http import build_http
from deployments.target_client import HandleClient
from engine.model_files import resolve_model
from engine.text import Text


class Ingress:
    """`target` is the Serve handle of the deployment Target."""

    def __init__(self, config: Mapping[str, object], target: Any) -> None:
        section = ClusterConfig.model_validate(config).target
        text = Text.load(resolve_model(section.model))
        self._gateway = Gateway(HandleClient(target), text, IngressSettings().limits)

    def __serve_build_asgi_app__(self) -> FastAPI:  # the name that serve.ingress() asks for
        return build_http(self._gateway)

    def reconfigure(self, user_config: Mapping[str, object]) -> None:
        self._gateway.apply(IngressSettings.model_validate(user_config))
