"""What statistics are about, and the one function that builds keys.

All keys of a pool share a hash tag, so that a script may touch several of them in a cluster. The
schema version is in the tag: another version's keys are never read or written.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Literal

SCHEMA_VERSION = 1
PREFIX = "hedgerow:statistics:"
DRAFTERS_PREFIX = "hedgerow:drafters:"

Kind = Literal["live", "past"]
KINDS: tuple[Kind, ...] = ("live", "past")

_FINGERPRINT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TAG = re.compile(r"\{(\d+):([^:{}]+):([^:{}]+)\}")


@dataclass(frozen=True, slots=True)
class Pool:
    """The target model and the drafters that counts belong to, as fingerprints."""

    model: str
    drafters: str

    def __post_init__(self) -> None:
        for name, value in (("model", self.model), ("drafters", self.drafters)):
            if not _FINGERPRINT.fullmatch(value):
                raise ValueError(f"{name}: {value!r} is no fingerprint; allowed: A-Z a-z 0-9 . _ -")


@dataclass(frozen=True, slots=True, order=True)
class Table:
    """One tenant's counts of one epoch, which is named by its start in Unix seconds.

    `live` tables hold counts, one per epoch. The `past` table holds what is left of the epochs up
    to its own, in units of 1 / PAST_UNIT.
    """

    tenant: str
    epoch: int
    kind: Kind = "live"

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.epoch}:{self.tenant}"


PAST_UNIT = 256


def table_of(name: str) -> Table | None:
    """The table of a name, None if this version knows no such table."""
    kind, _, rest = name.partition(":")
    epoch, colon, tenant = rest.partition(":")
    for known in KINDS:
        if kind == known and colon and re.fullmatch(r"\d{1,15}", epoch, re.ASCII):
            return Table(tenant, int(epoch), known)
    return None


def fingerprint(*parts: object) -> str:
    """Of anything JSON can hold; equal for equal values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def key(pool: Pool, *parts: str) -> str:
    """`index`; a table's name; or `writer`, an id and a table's name."""
    return ":".join((f"{PREFIX}{{{SCHEMA_VERSION}:{pool.model}:{pool.drafters}}}", *parts))


def drafters_key(model: str) -> str:
    """Of the changes to a model's drafters, whose pools they make."""
    if not _FINGERPRINT.fullmatch(model):
        raise ValueError(f"model: {model!r} is no fingerprint; allowed: A-Z a-z 0-9 . _ -")
    return f"{DRAFTERS_PREFIX}{{{SCHEMA_VERSION}:{model}}}"


def pool_of(text: str) -> tuple[int, Pool] | None:
    """The schema version and pool of a key, None if it is none of ours."""
    found = _TAG.match(text, len(PREFIX)) if text.startswith(PREFIX) else None
    try:
        return (int(found[1]), Pool(found[2], found[3])) if found else None
    except ValueError:
        return None
