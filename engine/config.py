"""What the engine can be set to; checked where it is read (cluster.config), used as it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Numerics = Literal["fast", "invariant"]
Dtype = Literal["float32", "bfloat16", "float16"]
Quantization = Literal["float16"]
DrafterKind = Literal["prompt_lookup", "suffix", "model", "head"]


@dataclass(frozen=True, slots=True)
class TargetConfig:
    """The target model and the room it gets.

    `model` is a local folder of a Hugging Face causal LM (safetensors) or a Hub id. `quantization`
    is of the weights alone, on a CPU (`engine.quantisation`; None: they are in `dtype`, as all else
    is). `num_kv_tokens` is the size of the paged KV cache in tokens, `max_batch_tokens` the most
    prompt and verified tokens of one forward (drafts come on top, at most as many again),
    `max_sequence_length` the most tokens of prompt and answer together (None: what the model and
    the cache allow), `max_queue_length` the most requests that wait; a tenant may have as many
    waiting as places are left, so that one alone fills half. Models as drafters get what their
    target has, trained ones have float16 wherever that works.
    """

    model: str
    device: str = "cpu"
    dtype: Dtype = "float32"
    quantization: Quantization | None = None
    numerics: Numerics = "fast"
    num_threads: int | None = None
    num_kv_tokens: int = 16384
    block_size: int = 16
    max_num_sequences: int = 32
    max_batch_tokens: int = 512
    max_sequence_length: int | None = None
    max_queue_length: int = 1024


@dataclass(frozen=True, slots=True)
class DrafterConfig:
    """One in-process drafter.

    `path` is the folder of a drafter that was trained for the target (kinds "model" and "head"),
    `model` another model's folder or Hub id (kind "model"). With `stop_threshold` a drafter with a
    path ends its drafts itself, where a refusal is at least so likely.
    """

    name: str
    kind: DrafterKind
    max_draft_length: int = 16
    model: str | None = None
    path: str | None = None
    stop_threshold: float | None = None
