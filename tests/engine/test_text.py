"""Tokenizer, detokenizer and chat template on small tokenizers of both families."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from engine.errors import InvalidRequestError, ModelRefusedError
from engine.text import Text
from engine.token_bytes import byte_level_alphabet

TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'bad' %}{{ raise_exception('no bad') }}"
    "{% endif %}{{ bos_token }}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
END = "<|end|>"


def byte_level_tokenizer() -> Tokenizer:
    """Every byte is a token, and a few merges cut through characters."""
    vocab = {character: index for index, character in enumerate(sorted(byte_level_alphabet()))}
    merges = [("ð", "Ł"), ("ä", "½"), ("Ġ", "a")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    tokenizer.add_tokens([AddedToken("<two words>", special=False)])
    return tokenizer


def sentence_piece_tokenizer() -> Tokenizer:
    vocab = {"<unk>": 0, "▁": 1, "▁hello": 2, "世": 3, "a": 4, "▁▁": 5}
    vocab.update({f"<0x{byte:02X}>": 6 + byte for byte in range(256)})
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def write_model(folder: Path, tokenizer: Tokenizer, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": END}, "bos_token": "<s>", "chat_template": TEMPLATE})
    )
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    folder = tmp_path_factory.mktemp("byte_level")
    return Text.load(write_model(folder, byte_level_tokenizer(), eos_token_id=[7, 9]))


@pytest.fixture(scope="module")
def sentence_piece(tmp_path_factory: pytest.TempPathFactory) -> Text:
    return Text.load(write_model(tmp_path_factory.mktemp("pieces"), sentence_piece_tokenizer()))


def streamed(text: Text, ids: list[int]) -> list[str]:
    detokenizer = text.detokenizer()
    return [*(detokenizer.push(token_id) for token_id in ids), detokenizer.flush()]


@settings(deadline=None)
@given(ids=st.lists(st.integers(-1, 300), max_size=40))
def test_streamed_text_joins_to_decoded_text(text: Text, ids: list[int]) -> None:
    assert "".join(streamed(text, ids)) == text.decode(ids)


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 258), max_size=40))
def test_decoding_equals_the_tokenizers_library(text: Text, ids: list[int]) -> None:
    expected = byte_level_tokenizer().decode(ids, skip_special_tokens=True)
    assert text.decode(ids) == expected


@settings(deadline=None)
@given(content=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_text_survives_a_round_trip_and_never_splits_a_character(text: Text, content: str) -> None:
    ids = text.encode(content, add_special_tokens=False)
    if END in content:
        return
    pieces = streamed(text, ids)
    assert "".join(pieces) == content
    assert content.count("\ufffd") == "".join(pieces).count("\ufffd")


def test_emoji_appears_whole_with_its_last_byte(text: Text) -> None:
    ids = text.encode("😀世", add_special_tokens=False)
    pieces = [piece for piece in streamed(text, ids) if piece]
    assert pieces == ["😀", "世"]
    assert len(ids) > 2


def test_incomplete_character_is_flushed_as_a_replacement(text: Text) -> None:
    ids = text.encode("😀", add_special_tokens=False)[:-1]
    assert streamed(text, ids)[-1] == "\ufffd"


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 261), max_size=40))
def test_sentence_piece_stream_joins_to_decoded_text(sentence_piece: Text, ids: list[int]) -> None:
    assert "".join(streamed(sentence_piece, ids)) == sentence_piece.decode(ids)


@settings(deadline=None)
@given(words=st.lists(st.sampled_from(["▁hello", "▁", "世", "a", "é", "😀"]), max_size=20))
def test_sentence_piece_decoding_equals_the_library(sentence_piece: Text, words: list[str]) -> None:
    tokenizer = sentence_piece_tokenizer()
    ids = [token_id for word in words for token_id in tokenizer.encode(word).ids]
    assert sentence_piece.decode(ids) == tokenizer.decode(ids)


def test_token_bytes_are_exact_in_both_families(text: Text, sentence_piece: Text) -> None:
    whole = b"".join(text.token_bytes(i) for i in text.encode("a 😀\n", add_special_tokens=False))
    assert whole == "a 😀\n".encode()
    assert sentence_piece.token_bytes(2) == b" hello"
    assert sentence_piece.token_bytes(6 + 0xF0) == b"\xf0"
    assert text.token_bytes(10**6) == b""


def test_special_tokens_have_bytes_but_no_text(text: Text) -> None:
    (token_id,) = text.encode(END, add_special_tokens=False)
    assert text.token_bytes(token_id) == END.encode()
    assert text.decode([token_id]) == ""


def test_eos_is_the_union_of_what_the_files_say(text: Text) -> None:
    (end,) = text.encode(END, add_special_tokens=False)
    assert text.eos_token_ids == (7, 9, end)


def test_chat_template_renders_like_hugging_face(text: Text) -> None:
    messages = [{"role": "user", "content": "hi <b>"}]
    assert text.render_chat(messages) == "<s>user: hi <b>\nassistant: "
    assert text.render_chat(messages, add_generation_prompt=False) == "<s>user: hi <b>\n"


def test_template_that_raises_blames_the_messages(text: Text) -> None:
    with pytest.raises(InvalidRequestError, match="no bad") as caught:
        text.render_chat([{"role": "bad", "content": ""}])
    assert caught.value.parameter == "messages"


def test_template_cannot_reach_outside_its_sandbox(tmp_path: Path) -> None:
    folder = write_model(tmp_path, byte_level_tokenizer())
    (folder / "chat_template.jinja").write_text("{{ messages.__class__.__mro__ }}")
    with pytest.raises(InvalidRequestError, match="unsafe"):
        Text.load(folder).render_chat([{"role": "user", "content": "x"}])


def test_generation_blocks_and_loop_controls_are_understood(tmp_path: Path) -> None:
    folder = write_model(tmp_path, byte_level_tokenizer())
    source = (
        "{% for m in messages %}{% generation %}{{ m | tojson }}{% endgeneration %}"
        "{% break %}{% endfor %}"
    )
    (folder / "chat_template.jinja").write_text(source)
    messages = [{"role": "user", "content": "<é>"}] * 2
    assert Text.load(folder).render_chat(messages) == '{"role": "user", "content": "<é>"}'


def test_model_without_chat_template_says_where_to_go(tmp_path: Path) -> None:
    folder = write_model(tmp_path, byte_level_tokenizer())
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(InvalidRequestError, match="/v1/completions"):
        Text.load(folder).render_chat([{"role": "user", "content": "x"}])


def test_lone_surrogate_is_refused(text: Text) -> None:
    with pytest.raises(InvalidRequestError, match="valid Unicode"):
        text.encode("\ud800", add_special_tokens=False)


@pytest.mark.parametrize("damage", ["missing", "not json", "unknown decoder"])
def test_unusable_tokenizer_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    tokenizer = byte_level_tokenizer()
    if damage == "unknown decoder":
        tokenizer.decoder = decoders.WordPiece()
    folder = write_model(tmp_path, tokenizer)
    if damage == "missing":
        (folder / "tokenizer.json").unlink()
    if damage == "not json":
        (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelRefusedError, match=str(tmp_path)):
        Text.load(folder)


def test_reading_text_loads_no_torch_and_no_transformers() -> None:
    program = "import sys, engine.text; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
