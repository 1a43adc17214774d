"""Tokens in log-probabilities: as a string for people and as exact bytes."""

from __future__ import annotations

from engine.text import Text


def token_name(text: Text, token_id: int) -> str:
    """The token's text; bytes that are no whole characters as OpenAI writes them."""
    piece = text.token_bytes(token_id)
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
