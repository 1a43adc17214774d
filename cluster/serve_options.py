"""Values of Ray's own part that decide whether the application can be reached, typed like ours.

Ray reads many more; what it makes of a wrong one it says itself, when it starts.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cluster.config import Section

ROUTE_PREFIX = "/"
PROXY_LOCATIONS = ("HeadOnly", "EveryNode")
IMPORT_PATHS = ("deployments.app:build_app", "deployments.app:app")
TAKES_NO_ARGS = "deployments.app:app"

Path = Annotated[str, Field(min_length=1)] | None


class HttpOptions(Section):
    """`http_options`; the defaults of host and port are those of `python -m deployments.serve`."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    root_path: str = ""
    request_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    keep_alive_timeout_s: Annotated[int, Field(ge=1, le=86400)] = 90
    ssl_keyfile: Path = None
    ssl_certfile: Path = None
    ssl_keyfile_password: str | None = None
    ssl_ca_certs: Path = None
