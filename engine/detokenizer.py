"""Turns a stream of token ids into a stream of text, whole characters at a time."""

from __future__ import annotations

import codecs

from engine.token_bytes import TokenBytes


class Detokenizer:
    """Holds the bytes of a character until it is complete. All pushes and the flush join to what
    `Text.decode` gives for the same ids."""

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = True

    def push(self, token_id: int) -> str:
        """The text that became complete; "" if none did."""
        piece = self._token_bytes.text_bytes(token_id)
        if self._at_start and piece:
            piece = self._token_bytes.strip_start(piece)
            self._at_start = False
        return self._decoder.decode(piece)

    def flush(self) -> str:
        """What is left at the end: replacement characters for a character never completed."""
        return self._decoder.decode(b"", final=True)
