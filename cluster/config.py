"""The part of ray_config.yaml that is ours, typed and bounded; an unknown key is an error.

`ClusterConfig` is `applications[0].args` and holds what needs a restart; what is applied live is in
`cluster.settings`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

EMBEDDED_MODEL = "smollm2-135m-instruct"
MAX_DRAFT_LENGTH = 64

DraftLength = Annotated[int, Field(ge=0, le=MAX_DRAFT_LENGTH)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class Section(BaseModel):
    """One mapping of the file: no unknown key, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TargetSection(Section):
    """The model that is served, and the room that it gets. `None` leaves it to the engine.

    `quantization` holds the weights of linear layers in 16 bits, on a CPU, and computes in float32;
    without it they are in `dtype`, as all else is. Trained drafters are held so beside any
    target in float32 on a CPU.
    """

    model: Annotated[str, Field(min_length=1)] = EMBEDDED_MODEL
    device: Annotated[str, Field(pattern=r"^(cpu|cuda|cuda:[0-9]+)$")] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantization: Literal["float16"] | None = None
    numerics: Literal["fast", "invariant"] = "fast"
    num_threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    num_kv_tokens: Annotated[int, Field(ge=64, le=2**31)] = 16384
    block_size: Annotated[int, Field(ge=1, le=64)] = 16  # at most the smallest cache
    max_num_sequences: Annotated[int, Field(ge=1, le=4096)] = 32
    max_batch_tokens: Annotated[int, Field(ge=1, le=2**20)] = 512
    max_sequence_length: Annotated[int, Field(ge=2, le=2**24)] | None = None
    max_queue_length: Annotated[int, Field(ge=1, le=2**20)] = 1024

    @model_validator(mode="after")
    def _quantization_fits(self) -> TargetSection:
        for key, needed in (("device", "cpu"), ("dtype", "float32")):
            given = getattr(self, key)
            if self.quantization is not None and given != needed:
                raise ValueError(
                    f"quantization {self.quantization!r} is for {key} {needed!r}, not {given!r}"
                )
        return self


class HostSection(Section):
    """A Serve deployment of its own for the drafters that name it, with what each replica books.

    `num_kv_tokens` is the cache of each of its model drafters. `draft_timeout_s` is how long a
    target waits for a draft or a score before it goes on without. With `draft_ahead` its model
    drafters go on while targets verify, as if all were accepted: for a device of its own, which has
    nothing else to do. `None` leaves it to the target's.
    """

    name: Name
    num_replicas: Annotated[int, Field(ge=1, le=1024)] = 1
    num_cpus: Annotated[float, Field(ge=0, le=1024, allow_inf_nan=False)] = 0.25
    num_gpus: Annotated[float, Field(ge=0, le=1024, allow_inf_nan=False)] = 0
    resources: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict, max_length=64
    )
    device: Annotated[str, Field(pattern=r"^(cpu|cuda|cuda:[0-9]+)$")] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    num_threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    num_kv_tokens: Annotated[int, Field(ge=64, le=2**31)] | None = None
    draft_timeout_s: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 0.1
    draft_ahead: bool = False

    @model_validator(mode="after")
    def _resources_are_custom(self) -> HostSection:
        for name in ("CPU", "GPU", "memory", "object_store_memory"):
            if name in self.resources:
                raise ValueError(f"resources: {name!r} is no resource of the operator's own")
        return self

    @property
    def deployment(self) -> str:
        """Its name in Ray Serve."""
        return f"Drafter-{self.name}"


class DrafterSection(Section):
    """One drafter.

    `path` is the folder of a drafter that was trained for the target, for kind `head` and `model`;
    `model` another model's folder or Hub id, for kind `model` alone. With `stop_threshold` such a
    drafter ends its drafts itself where a refusal is that likely. `host` names one of `hosts`; None
    is the target's own process, where all heads are.
    """

    name: Name
    kind: Literal["prompt_lookup", "suffix", "model", "head"]
    max_draft_length: Annotated[int, Field(ge=1, le=MAX_DRAFT_LENGTH)] = 16
    model: Annotated[str, Field(min_length=1)] | None = None
    path: Annotated[str, Field(min_length=1)] | None = None
    stop_threshold: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = None
    host: Name | None = None

    @model_validator(mode="after")
    def _keys_belong_to_their_kind(self) -> DrafterSection:
        given = [key for key in ("model", "path") if getattr(self, key) is not None]
        allowed = {"model": ("model", "path"), "head": ("path",)}.get(self.kind, ())
        for key in given:
            if key not in allowed:
                raise ValueError(f"kind {self.kind!r} takes no key {key!r}")
        if self.kind == "model" and len(given) != 1:
            raise ValueError("kind 'model' needs one of the keys 'model' and 'path'")
        if self.kind == "head" and not given:
            raise ValueError("kind 'head' needs the key 'path': a drafter's folder")
        if self.kind == "head" and self.host is not None:
            raise ValueError("kind 'head' takes no key 'host': it drafts in the target's process")
        if self.stop_threshold is not None and self.path is None:
            raise ValueError("stop_threshold is for drafters with a path")
        return self


class RedisSection(Section):
    """What replicas learn, in the Redis of the environment's REDIS_URL, else in a private one.

    After `half_life_s` a count is worth half. Weights are in drafts, by drafter and context: all
    other tenants together count for at most `shared_weight` beside a tenant's own drafts, and each
    of them for at most `tenant_weight` among the others.
    """

    half_life_s: Annotated[float, Field(ge=60, le=1e9, allow_inf_nan=False)] = 3 * 86400.0
    shared_weight: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 2.0
    tenant_weight: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 1000.0


class ClusterConfig(Section):
    """What needs a restart when it changes."""

    target: TargetSection = TargetSection()
    redis: RedisSection = RedisSection()
    drafters: tuple[DrafterSection, ...] = Field(default=(), strict=False, max_length=64)
    hosts: tuple[HostSection, ...] = Field(default=(), strict=False, max_length=64)

    @model_validator(mode="after")
    def _names_are_unique(self) -> ClusterConfig:
        for key, sections in (("drafters", self.drafters), ("hosts", self.hosts)):
            names = [section.name for section in sections]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{key}: two of them have the name {twice[0]!r}")
        return self

    @model_validator(mode="after")
    def _hosts_and_drafters_fit(self) -> ClusterConfig:
        hosts = [host.name for host in self.hosts]
        for drafter in self.drafters:
            if drafter.host is not None and drafter.host not in hosts:
                known = ", ".join(hosts) or "none"
                raise ValueError(
                    f"drafters: {drafter.name!r} names the host {drafter.host!r}, which is not "
                    f"among `hosts`; configured: {known}"
                )
        return self

    def drafters_at(self, host: str | None) -> tuple[DrafterSection, ...]:
        """Those of this host; of the target's own process if it is None."""
        return tuple(drafter for drafter in self.drafters if drafter.host == host)
