"""The bytes that every token stands for, read from a tokenizer's own decoder.

Covers the two families in use: byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM) and SentencePiece
with byte fallback (Llama 2, Mistral, Gemma). A tokenizer that decodes otherwise is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from engine.errors import ModelRefusedError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """`pieces[i]` is what token i stands for; `special` ids are not part of the text.

    `start` is what the decoder takes off the front of a text (SentencePiece's dummy space).
    """

    pieces: Sequence[bytes]
    special: frozenset[int]
    start: bytes

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, token_id: int) -> bytes:
        return self.pieces[token_id] if 0 <= token_id < len(self.pieces) else b""

    def text_bytes(self, token_id: int) -> bytes:
        return b"" if token_id in self.special else self[token_id]

    def strip_start(self, text: bytes) -> bytes:
        return text.removeprefix(self.start)


def byte_level_alphabet() -> dict[str, int]:
    """Character to byte, as in GPT-2: printable ones stand for themselves, others from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return alphabet


def _byte_level(alphabet: Mapping[str, int]) -> Callable[[str], bytes]:
    def read(token: str) -> bytes:
        try:
            return bytes(alphabet[character] for character in token)
        except KeyError:  # an added token with characters of its own, such as a space
            return token.encode("utf-8")

    return read


def _sentence_piece(replacements: Mapping[str, str], has_bytes: bool) -> Callable[[str], bytes]:
    def read(token: str) -> bytes:
        match = _BYTE_TOKEN.fullmatch(token) if has_bytes else None
        if match:
            return bytes([int(match[1], 16)])
        for old, new in replacements.items():
            token = token.replace(old, new)
        return token.encode("utf-8")

    return read


def _reader(steps: Sequence[Mapping[str, Any]], model: str) -> tuple[Callable[[str], bytes], bytes]:
    """How to read a token, and what is taken off a text's front, from a decoder's steps."""
    replacements: dict[str, str] = {}
    has_bytes, start = False, b""
    for step in steps:
        kind = step["type"]
        if kind == "ByteLevel":
            return _byte_level(byte_level_alphabet()), b""
        if kind == "Replace" and "String" in step["pattern"]:
            replacements[step["pattern"]["String"]] = step["content"]
        elif kind == "Metaspace":
            replacements[step["replacement"]] = " "
            start = b"" if step.get("prepend_scheme") == "never" else b" "
        elif kind == "ByteFallback":
            has_bytes = True
        elif kind == "Strip" and step["stop"] == 0:
            start = step["content"].encode("utf-8") * step["start"]
        elif kind != "Fuse":
            raise ModelRefusedError(model, f"has a tokenizer with an unknown decoder step {step}")
    return _sentence_piece(replacements, has_bytes), start


def read_token_bytes(tokenizer: Tokenizer, model: str) -> TokenBytes:
    """Raises ModelRefusedError if the tokenizer's decoder is of no known family."""
    decoder = json.loads(tokenizer.to_str())["decoder"]
    if decoder is None:
        raise ModelRefusedError(model, "has a tokenizer without a decoder")
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    read, start = _reader(steps, model)
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    pieces = [b""] * (1 + max(vocab.values(), default=-1))
    for token, token_id in vocab.items():
        pieces[token_id] = read(token)
    added = tokenizer.get_added_tokens_decoder()
    special = frozenset(token_id for token_id, token in added.items() if token.special)
    return TokenBytes(pieces=pieces, special=special, start=start)
