"""llama.cpp's server, from the wheel `xllamacpp`: float32, and beside it the 4-bit file itself."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.client import Endpoint
from benchmarks.peers.exported import float_gguf, quantised_gguf
from benchmarks.peers.process_tree import started, wait_until
from benchmarks.peers.system import (
    FLOAT32,
    NUM_KV_TOKENS,
    NUM_SEQUENCES,
    NUM_THREADS,
    PLAIN,
    QUANTISED,
    THREADS,
    Running,
    Server,
    System,
    interpreter,
    log_of,
    not_installed,
)
from benchmarks.workbench import MODEL

PROGRAM = Path(__file__).with_name("llama_server.py")
_LISTENING = re.compile(r"^listening (\S+)$", re.MULTILINE)
_KINDS = {
    "ngram-simple": "COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE",
    "ngram-map-k": "COMMON_SPECULATIVE_TYPE_NGRAM_MAP_K",
    "ngram-mod": "COMMON_SPECULATIVE_TYPE_NGRAM_MOD",
    "ngram-cache": "COMMON_SPECULATIVE_TYPE_NGRAM_CACHE",
}
_BODY = {"cache_prompt": False, "samplers": ["top_k"], "top_k": 1}


@contextmanager
def _start(gguf: Callable[[str], Path], modes: Sequence[str]) -> Iterator[Running]:
    (mode,) = modes
    options = {
        "model": str(gguf(MODEL)),
        "num_kv_tokens": NUM_KV_TOKENS,
        "num_sequences": NUM_SEQUENCES,
        "num_threads": NUM_THREADS,
        "speculation": _KINDS.get(mode),
    }
    log = log_of(f"llama-{gguf.__name__}-{mode}")
    command = [str(interpreter("llama")), str(PROGRAM), json.dumps(options)]
    with started(command, THREADS, log) as process:
        wait_until(lambda: bool(_address(log)), process, log)
        yield Server(process.pid, Endpoint(f"{_address(log)}/v1", MODEL, _BODY))


def _address(log: Path) -> str:
    found = _LISTENING.search(log.read_text(errors="replace"))
    return found[1] if found else ""


def _system(name: str, precision: str, gguf: Callable[[str], Path], modes: list[str]) -> System:
    return System(
        name=name,
        precision=precision,
        about=f"llama.cpp's server from xllamacpp, {precision}; n-gram types as they come",
        starts=tuple((mode,) for mode in modes),
        start=functools.partial(_start, gguf),
        missing=lambda: not_installed("llama"),
    )


SYSTEM = _system("llama", FLOAT32, float_gguf, [PLAIN, *_KINDS])
QUANTISED_SYSTEM = _system("llama-q4", QUANTISED, quantised_gguf, [PLAIN, "ngram-simple"])
