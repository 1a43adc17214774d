"""What the deployments' `user_config` may say: settings that are applied live."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from cluster.config import MAX_DRAFT_LENGTH, ClusterConfig, DraftLength, Name, Section


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
