"""The errors of the engine, each in its caller's terms.

EngineError
├── InvalidRequestError   a request asks for something impossible; names the parameter
├── ModelRefusedError     a model cannot be served here; says why and what would work
└── CapacityError         the request can never fit, or the queue is full
"""

from __future__ import annotations


class EngineError(Exception):
    """Root of everything the engine raises on purpose."""


class InvalidRequestError(EngineError):
    """`parameter` of a request has a value outside of what is allowed."""

    def __init__(self, parameter: str, value: object, allowed: str) -> None:
        self.parameter = parameter
        super().__init__(f"{parameter}: {value!r} is not allowed; expected {allowed}")


class ModelRefusedError(EngineError):
    """The model at `model` cannot be loaded or cannot be decoded losslessly."""

    def __init__(self, model: str, reason: str) -> None:
        self.model = model
        super().__init__(f"{model}: {reason}")


class CapacityError(EngineError):
    """`needed` exceeds `available`; `what` names the resource."""

    def __init__(self, what: str, needed: int, available: int) -> None:
        self.what = what
        super().__init__(f"{what}: {needed} needed, {available} available")
