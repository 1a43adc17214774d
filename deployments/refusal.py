"""Why a target does not take a request: plain data over the handle, an exception on either side.

It crosses as an item of the stream, not as a raised error, because Serve logs the traceback of
what a replica raises, and values of a request must not reach a log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Refusal:
    """`invalid` is the request's fault and names the parameter; `full` may be tried again."""

    kind: Literal["invalid", "full"]
    parameter: str | None
    message: str


class RefusedError(Exception):
    """The target did not take the request."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.message)
