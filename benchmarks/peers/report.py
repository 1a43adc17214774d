"""The results as Markdown, for people, and as one flat object, for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.peers.answers import Figures
from benchmarks.peers.results import Results, key_of
from benchmarks.peers.roofline import Roofline
from benchmarks.peers.system import System

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HEADER = (
    "", "tokens/s", "first token, ms", "ms a token", "acceptance length", "core-s a million",
    "peak MiB", "equal",
)  # fmt: skip
MEANINGS = {
    "plain_vs_peer": "plain decoding, against the fastest peer's",
    "best_vs_peer": "`survival`, against the fastest peer in its best mode",
    "best_vs_quantised": "`survival`, against llama.cpp's 4-bit target in its best mode",
    "engine_plain_vs_peer": "the engine's plain decoding, against the fastest peer's",
    "engine_best_vs_peer": "the engine's `survival`, against the fastest peer in its best mode",
    "engine_best_vs_quantised": "the engine's `survival`, against llama.cpp's 4-bit target",
    "bfloat16_plain_vs_peer": "plain decoding in bfloat16, against the fastest peer's in float32",
    "bfloat16_best_vs_peer": "`survival` in bfloat16, against the fastest peer in float32",
    "bfloat16_best_vs_quantised": "`survival` in bfloat16, against llama.cpp's 4-bit target",
    "float16_plain_vs_peer": "plain decoding with float16 weights, against the fastest peer's",
    "float16_best_vs_peer": "`survival` with float16 weights, against the fastest peer in float32",
    "float16_best_vs_quantised": "`survival` with float16 weights, against llama.cpp's 4-bit one",
    "adaptive_vs_fixed": "`survival` against the best fixed arm, both in the engine",
    "vs_rule": "`survival` against `rule`, both in the engine",
    "vs_hindsight": "`survival` against each request's best arm in hindsight, in the engine",
    "vs_plain": "`survival` against plain decoding, both in the engine",
    "http_vs_plain": "`survival` against plain decoding, both over HTTP",
    "bfloat16_vs_plain": "`survival` against plain decoding, both over HTTP in bfloat16",
    "float16_vs_plain": "`survival` against plain decoding, both over HTTP with float16 weights",
    "http_overhead": "throughput lost to HTTP and Serve, of the engine's with the same threads",
}


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a run's figures hold for."""

    machine: str
    roofline: Roofline
    num_threads: int
    max_tokens: int
    num_rounds: int


def markdown(results: Results, systems: Sequence[System], conditions: Conditions) -> str:
    """Everything but the pictures."""
    parts = [conditions.machine, "", conditions.roofline.sentence(), "", _how(conditions), ""]
    parts += [f"- `{system.name}` ({system.precision}): {system.about}" for system in systems]
    parts += [f"- left out: `{name}`: {why}" for name, why in results.left_out.items()]
    for cell in _cells(results):
        parts += ["", f"### {_title(cell)}", "", *_table(HEADER, _rows(results, systems, cell))]
    return "\n".join(parts)


def _how(conditions: Conditions) -> str:
    return (
        f"{conditions.num_threads} threads for each system, which is alone on the machine; greedy, "
        f"answers of at most {conditions.max_tokens} tokens, as long as transformers' own; medians "
        f"of {conditions.num_rounds} rounds (lowest-highest), prefill included. `equal` is the "
        "share of transformers' tokens before the first that differs."
    )


def ratio_table(ratios: Mapping[str, float]) -> str:
    """The worst of each kind, and all of them in words."""
    rows = []
    for kind, meaning in MEANINGS.items():
        if kind in ratios:
            parts = (
                f"{name.partition('/')[2]}: {value:.2f}"
                for name, value in ratios.items() if name.startswith(f"{kind}/")
            )  # fmt: skip
            rows.append([meaning, f"{ratios[kind]:.2f}", ", ".join(parts)])
    return "\n".join(_table(("", "worst", "by streams or mode"), rows))


def document(results: Results, ratios: Mapping[str, float]) -> dict[str, float]:
    """Median tokens per second by `system/mode/cell`, and the ratios."""
    speeds = {key: round(found.tokens_per_s, 2) for key, found in results.medians.items()}
    return speeds | {name: round(value, 4) for name, value in ratios.items()}


def spliced(page: str, measured: str) -> str:
    """`page` with another middle between its two marks; ValueError if it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{measured.strip()}\n\n{END}{after}"


def _cells(results: Results) -> list[str]:
    """In the order in which they were run."""
    return list(dict.fromkeys(key.split("/", 2)[2] for key in results.rounds))


def _title(cell: str) -> str:
    if cell == "open":
        return "Mixed prompts as they come, a Poisson process"
    streams, _, domain = cell.partition("/")
    return f"{domain.capitalize() or 'Mixed'} prompts, {streams} at a time"


def _rows(results: Results, systems: Sequence[System], cell: str) -> list[list[str]]:
    found, medians = [], results.medians
    for system in systems:
        for mode in system.modes:
            key = key_of(system.name, mode, cell)
            if key in medians:
                name = f"{system.name} {mode}"
                cells = _figures(medians[key], str(results.spread(key)), results.equal_share(key))
                found.append([name, *cells])
    return found


def _figures(median: Figures, speed: str, equal: float | None) -> list[str]:
    length = median.acceptance_length
    return [
        speed if not median.num_failed else f"{speed}, {median.num_failed} failed",
        f"{median.first_s * 1e3:.0f}",
        f"{median.per_token_s * 1e3:.1f}",
        "-" if length is None else f"{length:.2f}",
        f"{median.core_s_per_million:.0f}",
        f"{median.peak_rss_mb:.0f}",
        "-" if equal is None else f"{equal:.1%}",
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
