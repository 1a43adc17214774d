"""A tenant: who it is, what it may do and how much of everything it may have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.config import Name

Role = Literal["tenant", "operator"]
ROLES: tuple[Role, ...] = ("tenant", "operator")
Count = Annotated[int, Field(ge=1, le=2**40)] | None


class Tenant(BaseModel):
    """`None` is no limit. An operator may also see and change how the cluster works.

    `weight` is its share of a busy target beside other tenants; `max_sequences` bounds what runs
    and waits at once, in choices; `kv_quota_tokens` what its sequences hold together in a target.
    Keys that this version does not know are passed over, so that old and new processes can mix.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    name: Name
    role: Role = "tenant"
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    requests_per_min: Count = None
    tokens_per_min: Count = None
    max_sequences: Count = None
    kv_quota_tokens: Count = None

    @property
    def is_operator(self) -> bool:
        return self.role == "operator"
