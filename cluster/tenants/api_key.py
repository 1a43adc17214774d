"""API keys: `hr-ID-SECRET`. The id finds the record, which holds a hash of the whole.

The secret has 256 random bits, so that a plain hash cannot be guessed back.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

_FORM = re.compile(r"hr-([0-9a-f]{16})-[A-Za-z0-9_-]{43}")
MIN_LENGTH = 63
_NOBODY = "0" * 64


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Its text is shown once, to whom it is for, and stored nowhere but there."""

    text: str = field(repr=False)
    key_id: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"hedgerow key 1:" + self.text.encode()).hexdigest()

    def matches(self, digest: str | None) -> bool:
        """Takes as long whether it does or not, and also if there is no digest."""
        is_same = hmac.compare_digest(self.digest, digest or _NOBODY)
        return is_same and digest is not None


def new_key() -> ApiKey:
    key_id = secrets.token_hex(8)
    return ApiKey(f"hr-{key_id}-{secrets.token_urlsafe(32)}", key_id)


def parse_key(text: str) -> ApiKey | None:
    """None if it cannot be one of ours."""
    found = _FORM.fullmatch(text)
    return ApiKey(text, found[1]) if found else None
