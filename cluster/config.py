"""The part of ray_config.yaml that is ours, typed and bounded; an unknown key is an error.

`ClusterConfig` is `applications[0].args` and holds what needs a restart. `TargetSettings` and
`IngressSettings` are the deployments' `user_config`, applied live.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

EMBEDDED_MODEL = "smollm2-135m-instruct"
MAX_DRAFT_LENGTH = 64

DraftLength = Annotated[int, Field(ge=0, le=MAX_DRAFT_LENGTH)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class Section(BaseModel):
    """One mapping of the file: no unknown key, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TargetSection(Section):
    """The model that is served, and the room that it gets. `None` leaves it to the engine."""

    model: Annotated[str, Field(min_length=1)] = EMBEDDED_MODEL
    device: Annotated[str, Field(pattern=r"^(cpu|cuda|cuda:[0-9]+)$")] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    numerics: Literal["fast", "invariant"] = "fast"
    num_threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    num_kv_tokens: Annotated[int, Field(ge=64, le=2**31)] = 16384
    block_size: Annotated[int, Field(ge=1, le=64)] = 16  # at most the smallest cache
    max_num_sequences: Annotated[int, Field(ge=1, le=4096)] = 32
    max_batch_tokens: Annotated[int, Field(ge=1, le=2**20)] = 512
    max_sequence_length: Annotated[int, Field(ge=2, le=2**24)] | None = None
    max_queue_length: Annotated[int, Field(ge=1, le=2**20)] = 1024


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


class Arm(Section):
    """A drafter and how many tokens it drafts; no drafter is plain decoding."""

    drafter: Name | None = None
    draft_length: DraftLength = 0

    @model_validator(mode="after")
    def _plain_drafts_nothing(self) -> Arm:
        if (self.drafter is None) != (self.draft_length == 0):
            raise ValueError("a drafter needs draft_length >= 1, and no drafter draft_length 0")
        return self


class FixedSelectorSection(Arm):
    """One arm, always."""

    name: Literal["fixed"]

    def arms(self) -> Iterator[str]:
        if self.drafter is not None:
            yield self.drafter


class RuleSelectorSection(Section):
    """The lookup with the longest match, if one offers something, else the arm `otherwise`."""

    name: Literal["rule"]
    lookups: tuple[Name, ...] = Field(strict=False, min_length=1, max_length=64)
    draft_length: Annotated[int, Field(ge=1, le=MAX_DRAFT_LENGTH)] = 16
    otherwise: Arm = Arm()

    def arms(self) -> Iterator[str]:
        yield from self.lookups
        if self.otherwise.drafter is not None:
            yield self.otherwise.drafter


class LearnerSection(Section):
    """A selector that learns which arm to use.

    Its arms are `drafters`, None being all, times `draft_lengths`, as far as each drafter can
    give them; None are the usual lengths up to its longest.
    """

    drafters: tuple[Name, ...] | None = Field(default=None, strict=False, max_length=64)
    draft_lengths: tuple[Annotated[int, Field(ge=1, le=MAX_DRAFT_LENGTH)], ...] | None = Field(
        default=None, strict=False, min_length=1, max_length=MAX_DRAFT_LENGTH
    )

    def arms(self) -> Iterator[str]:
        yield from self.drafters or ()


class BanditSection(LearnerSection):
    """`loss` counts tokens by round, as in the papers, or by second; `scope` says who shares."""

    name: str
    loss: Literal["tokens", "seconds"] = "tokens"
    scope: Literal["request", "tenant", "global"] = "request"


class UcbSpecSection(BanditSection):
    """BanditSpec's UCBSpec; `radius_scale` 1 is the paper's exploration."""

    name: Literal["ucbspec"]
    radius_scale: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0


class Exp3SpecSection(BanditSection):
    """BanditSpec's EXP3Spec."""

    name: Literal["exp3spec"]


class HedgeSection(BanditSection):
    """HedgeSpec with Hedge; `rate` None is the one that needs no horizon."""

    name: Literal["hedge"]
    rate: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None


class NormalHedgeSection(BanditSection):
    """HedgeSpec with NormalHedge."""

    name: Literal["normalhedge"]


class SurvivalSection(LearnerSection):
    """Contextual survival; see policies/survival.py. `scope` says who shares a table.

    `evaluation_share` is the part of plain decoding's time that scoring unchosen drafters may take.
    With `confidence` drafters that have a stop of their own are asked each round how sure they are.
    """

    name: Literal["survival"] = "survival"
    confidence: bool = False
    evaluation_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.05
    scope: Literal["tenant", "global"] = "tenant"


SelectorSection = Annotated[
    FixedSelectorSection
    | RuleSelectorSection
    | UcbSpecSection
    | Exp3SpecSection
    | HedgeSection
    | NormalHedgeSection
    | SurvivalSection,
    Field(discriminator="name"),
]


def _switch(value: object) -> object:
    """YAML 1.1 reads a bare `on` or `off` as a boolean."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class TargetSettings(Section):
    """`user_config` of the deployment Target.

    `selector` decides for every request but those that name one of `selectors`. With `speculation`
    off everything is decoded plainly; drafters that are `disabled` are neither asked nor told.
    """

    speculation: Annotated[Literal["on", "off"], BeforeValidator(_switch)] = "on"
    selector: SelectorSection = SurvivalSection()
    selectors: dict[Name, SelectorSection] = Field(default_factory=dict, max_length=64)
    disabled: tuple[Name, ...] = Field(default=(), strict=False, max_length=64)

    def unknown_drafters(self, config: ClusterConfig) -> list[tuple[str, str]]:
        """(path of a setting, drafter) for every drafter that is not configured."""
        known = {drafter.name for drafter in config.drafters}
        sections = {"selector": self.selector}
        sections.update({f"selectors.{name}": section for name, section in self.selectors.items()})
        named = [(path, name) for path, section in sections.items() for name in section.arms()]
        named += [("disabled", name) for name in self.disabled]
        return [(path, name) for path, name in named if name not in known]


class Limits(Section):
    """What one request may ask for; checked before any work is done.

    `max_choices` bounds prompts times n, `request_timeout_s` the time until the last token.
    `max_prompt_tokens` None is what the target takes.
    """

    max_body_bytes: Annotated[int, Field(ge=1024, le=2**26)] = 2**20
    max_prompt_tokens: Annotated[int, Field(ge=1, le=2**24)] | None = None
    max_choices: Annotated[int, Field(ge=1, le=1024)] = 32
    request_timeout_s: Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)] = 600.0


class Resume(Section):
    """When an answer goes on at another target, and how far a slow client may fall behind.

    A target that is silent for `stall_timeout_s` is given up; after `max_losses` targets a request
    fails. While `max_buffered_tokens` of an answer wait for its client, no more are decoded; a
    client that takes nothing for `slow_client_timeout_s` is cut off.
    """

    stall_timeout_s: Annotated[float, Field(ge=3, le=3600, allow_inf_nan=False)] = 15.0
    max_losses: Annotated[int, Field(ge=0, le=1000)] = 5
    max_buffered_tokens: Annotated[int, Field(ge=1, le=2**20)] = 512
    slow_client_timeout_s: Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)] = 60.0


class IngressSettings(Section):
    """`user_config` of the deployment Ingress."""

    limits: Limits = Limits()
    resume: Resume = Resume()


DEPLOYMENT_SETTINGS: dict[str, type[Section]] = {
    "Ingress": IngressSettings,
    "Router": Section,
    "Target": TargetSettings,
}
