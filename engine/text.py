"""Text to token ids and back: tokenizer, special tokens, chat template, streaming.

A token is a fixed string of bytes, and the text of some ids is their bytes read as UTF-8, so that
what is streamed, piece by piece, always joins to what `decode` gives. Loads no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
from tokenizers import Tokenizer

from engine.chat_template import ChatTemplate, Message
from engine.detokenizer import Detokenizer
from engine.errors import InvalidRequestError, ModelRefusedError
from engine.token_bytes import TokenBytes, read_token_bytes

_SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
_Json = Mapping[str, object]


class Text:
    """One model's tokenizer and chat template; safe to use from several threads."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        token_bytes: TokenBytes,
        eos_token_ids: tuple[int, ...],
        chat_template: ChatTemplate | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._token_bytes = token_bytes
        self._chat_template = chat_template
        self.eos_token_ids = eos_token_ids

    @staticmethod
    def load(model_dir: Path) -> Text:
        """Reads a Hugging Face model folder; raises ModelRefusedError for what it cannot decode."""
        tokenizer = _read_tokenizer(model_dir)
        special_tokens = _special_tokens(model_dir)
        return Text(
            tokenizer=tokenizer,
            token_bytes=read_token_bytes(tokenizer, str(model_dir)),
            eos_token_ids=_eos_token_ids(model_dir, tokenizer, special_tokens.get("eos_token")),
            chat_template=_read_chat_template(model_dir, special_tokens),
        )

    @property
    def vocab_size(self) -> int:
        """One more than the highest id that the tokenizer knows."""
        return len(self._token_bytes)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        except (TypeError, UnicodeEncodeError) as error:  # a lone surrogate is no text
            raise InvalidRequestError("prompt", "\\ud800", "valid Unicode text") from error
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special tokens and ids without a token have none."""
        joined = b"".join(self._token_bytes.text_bytes(token_id) for token_id in ids)
        return self._token_bytes.strip_start(joined).decode("utf-8", errors="replace")

    def render_chat(self, messages: Sequence[Message], **template_kwargs: object) -> str:
        if self._chat_template is None:
            roles = [message.get("role") for message in messages]
            allowed = "a plain prompt at /v1/completions: this model has no chat template"
            raise InvalidRequestError("messages", roles, allowed)
        return self._chat_template.render(messages, **template_kwargs)

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes of a token; a special token's name; b"" for an unknown id."""
        return self._token_bytes[token_id]

    def detokenizer(self) -> Detokenizer:
        return Detokenizer(self._token_bytes)


def _read_json(path: Path) -> _Json:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelRefusedError(str(path), f"is damaged: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ModelRefusedError(str(path), "is damaged: not a JSON object")
    return content


def _read_tokenizer(model_dir: Path) -> Tokenizer:
    path = model_dir / "tokenizer.json"
    if not path.is_file():
        raise ModelRefusedError(
            str(model_dir), "has no tokenizer.json (a fast tokenizer is needed)"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ModelRefusedError(str(path), f"is damaged or unknown: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _special_tokens(model_dir: Path) -> dict[str, str]:
    """Name to content, from the two files in which Hugging Face keeps them."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        content = _read_json(model_dir / name)
        for key in _SPECIAL_TOKENS:
            value = content.get(key)
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):
                found[key] = text
    return found


def _eos_token_ids(model_dir: Path, tokenizer: Tokenizer, eos_token: str | None) -> tuple[int, ...]:
    """Every id that some file of the model calls the end of a sequence."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        value = _read_json(model_dir / name).get("eos_token_id")
        found.update(i for i in (value if isinstance(value, list) else [value]) if type(i) is int)
    token_id = tokenizer.token_to_id(eos_token) if eos_token is not None else None
    if token_id is not None:
        found.add(token_id)
    return tuple(sorted(found))


def _template_source(model_dir: Path) -> str | None:
    path = model_dir / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        value = _read_json(model_dir / name).get("chat_template")
        if isinstance(value, list):  # several named templates
            named = {entry.get("name"): entry.get("template") for entry in value}
            value = named.get("default")
        if isinstance(value, str):
            return value
    return None


def _read_chat_template(model_dir: Path, special_tokens: Mapping[str, str]) -> ChatTemplate | None:
    source = _template_source(model_dir)
    if source is None:
        return None
    try:
        return ChatTemplate(source, special_tokens)
    except jinja2.TemplateSyntaxError as error:
        reason = f"has a chat template that does not parse: {error}"
        raise ModelRefusedError(str(model_dir), reason) from error
