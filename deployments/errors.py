"""Errors in OpenAI's shape, and the ways in which a request goes wrong."""

from __future__ import annotations

from collections.abc import Mapping

INVALID = "invalid_request_error"
SERVER = "server_error"
MAX_TEXT = 500  # characters of a message: a request's own words may be in it


class ApiError(Exception):
    """An answer with an HTTP status; `parameter` is the path in the request's body."""

    def __init__(
        self,
        status: int,
        message: str,
        parameter: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        self.status = status
        self.message = _cut(message)
        self.parameter = None if parameter is None else _cut(parameter)
        self.code = code
        self.retry_after_s = retry_after_s
        super().__init__(message)

    @property
    def body(self) -> dict[str, Mapping[str, object]]:
        kind = INVALID if self.status < 500 and self.status != 429 else SERVER
        return {
            "error": {
                "message": self.message,
                "type": "rate_limit_error" if self.status == 429 else kind,
                "param": self.parameter,
                "code": self.code,
            }
        }

    @property
    def headers(self) -> dict[str, str]:
        found = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


class OverloadedError(ApiError):
    """503: more comes than can be answered; may be tried again."""

    def __init__(self, message: str) -> None:
        super().__init__(503, message, None, "overloaded", retry_after_s=1)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


class ClientGoneError(Exception):
    """The client hung up; nobody reads an answer."""


def invalid(parameter: str | None, message: str, code: str | None = None) -> ApiError:
    return ApiError(400, message, parameter, code)


def internal() -> ApiError:
    """Says nothing of the cause: that is in the log, and a request's content in neither."""
    return ApiError(500, "the server failed while answering; see its log", None, "internal_error")
