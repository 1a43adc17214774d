"""`python -m benchmarks.peers`: Hedgerow beside transformers, vLLM and llama.cpp, in one run.

Systems start one after the other, in rounds, each alone on the machine with the same threads.
Writes docs/performance.md with its pictures, and build/peers/results.json; the last line printed is
one JSON object. ONLY="vllm hedgerow" takes these alone, THREADS=1 gives each system so many; then,
and with QUICK=1 (minutes instead of hours), the page and the pictures go to build/peers/. ROUNDS=1
measures each once, instead of three times.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.machine import describe_machine, is_quick
from benchmarks.peers import generate, hedgerow, llama, vllm
from benchmarks.peers.answers import Answer, Figures, figures
from benchmarks.peers.engine_worker import fixed_arms
from benchmarks.peers.expected import Expected, expected
from benchmarks.peers.exported import FOLDER
from benchmarks.peers.pictures import draw
from benchmarks.peers.process_tree import Meter, StartError
from benchmarks.peers.report import Conditions, document, markdown, ratio_table, spliced
from benchmarks.peers.results import Compared, Results, key_of, ratios
from benchmarks.peers.roofline import measure
from benchmarks.peers.system import FLOAT32, NUM_THREADS, QUANTISED, Running, System
from benchmarks.peers.workload import FULL, QUICK, Cell, Ids, Job, Size, cells, common_tokens
from benchmarks.prompts import DOMAINS
from benchmarks.varied_prompts import varied_prompts
from benchmarks.workbench import MODEL
from engine.model_files import resolve_model
from engine.text import Text

SYSTEMS = (
    hedgerow.SYSTEM, hedgerow.AS_SERVED, hedgerow.ENGINE, hedgerow.HALF, hedgerow.QUANTISED,
    generate.SYSTEM, vllm.SYSTEM, llama.SYSTEM, llama.QUANTISED_SYSTEM,
)  # fmt: skip
PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
WARM_STREAMS, WARM_TOKENS = 8, 24


class UnknownSystemError(Exception):
    """ONLY names what there is not."""


def chosen(only: str, systems: Sequence[System] = SYSTEMS) -> list[System]:
    """Those that `only` names, all for an empty one; raises UnknownSystemError."""
    names = only.replace(",", " ").split()
    known = [system.name for system in systems]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UnknownSystemError(f"ONLY: {unknown[0]}: no such system; there are {known}")
    return [system for system in systems if not names or system.name in names]


@dataclass(frozen=True, slots=True)
class Plan:
    """`warm` comes first, in every mode: other prompts, of which nothing is measured."""

    warm: Cell
    cells: Sequence[Cell]
    texts: dict[Ids, tuple[str, ...]]  # of a prompt, the expected answer's tokens
    num_rounds: int


def make_plan(size: Size) -> Plan:
    """Asks transformers first, if nobody has yet."""
    per_domain = max([size.domain_streams, *(-(-n // len(DOMAINS)) for n in size.mixed.values())])
    found: list[Expected] = expected(size.max_tokens, per_domain)
    jobs = {d: [each.job for each in found if each.job.domain == d] for d in DOMAINS}
    texts = {each.job.prompt_ids: each.tokens for each in found}
    return Plan(warm_cell(size.warm_requests), cells(jobs, size), texts, size.rounds)


def warm_cell(num_requests: int) -> Cell:
    """Of prompts that are in no other cell, so that what can be learnt is not the answers."""
    text = Text.load(resolve_model(MODEL))
    prompts = [
        text.render_chat([{"role": "user", "content": prompt}])
        for prompt in varied_prompts(num_requests, seed=0)
    ]
    ids = [tuple(text.encode(prompt, add_special_tokens=False)) for prompt in prompts]
    return Cell("warm", tuple(Job("varied", each, WARM_TOKENS) for each in ids), WARM_STREAMS)


class Run:
    """Fills `results`, and keeps them in a file as they come."""

    def __init__(self, plan: Plan, results: Results) -> None:
        self._plan, self._results = plan, results

    def run(self, systems: Sequence[System]) -> None:
        for number in range(self._plan.num_rounds):
            first = number % max(1, len(systems))
            for system in [*systems[first:], *systems[:first]]:
                why = system.missing()
                for modes in system.starts if why is None else ():
                    self._start(system, modes, number)
                if why is not None:
                    self._leave_out(system.name, why)

    def _start(self, system: System, modes: Sequence[str], number: int) -> None:
        try:
            with system.start(modes) as running:
                for mode in modes:
                    running.ask(self._plan.warm, mode)
                for cell, mode in self._turns(system, modes, number):
                    self._measure(system, running, cell, mode, number)
        except (StartError, OSError) as error:
            self._leave_out(f"{system.name} {', '.join(modes)}", str(error))

    def _turns(
        self, system: System, modes: Sequence[str], number: int
    ) -> Iterator[tuple[Cell, str]]:
        """Cell by cell, its modes in an order that changes."""
        for i, cell in enumerate(self._plan.cells):
            first = (number + i) % len(modes)
            for mode in [*modes[first:], *modes[:first]]:
                if system.measures(mode, cell.name):
                    yield cell, mode

    def _measure(
        self, system: System, running: Running, cell: Cell, mode: str, number: int
    ) -> None:
        key = key_of(system.name, mode, cell.name)
        with Meter(running.pid) as meter:
            answers = running.ask(cell, mode)
        found = figures(answers, meter.effort)
        failures = sorted({answer.failure for answer in answers if answer.failure})
        print(f"round {number + 1}: {key}: {_told(found)} {'; '.join(failures)}", file=sys.stderr)
        if found is None:
            self._leave_out(key, failures[0])
            return
        self._results.add(key, number, found)
        if cell.num_streams == 1 and not failures:
            seconds = [answer.total_s for answer in answers]
            self._results.seconds.setdefault(key, {})[number] = seconds
        self._compare(key, cell, answers)
        self._keep()

    def _compare(self, key: str, cell: Cell, answers: Sequence[Answer]) -> None:
        for job, answer in zip(cell.jobs, answers, strict=True):
            if not answer.failure:
                tokens = self._plan.texts[job.prompt_ids]
                self._results.add_equal(key, common_tokens(answer.text, tokens), len(tokens))

    def _leave_out(self, name: str, why: str) -> None:
        if name not in self._results.left_out:
            print(f"left out: {name}: {why}", file=sys.stderr)
        self._results.left_out[name] = why.strip().splitlines()[-1]

    def _keep(self) -> None:
        kept = {
            key: [found.document for found in rounds.values()]
            for key, rounds in self._results.rounds.items()
        }
        (FOLDER / "results.json").write_text(json.dumps(kept, indent=1))


def _told(found: Figures | None) -> str:
    return "nothing" if found is None else f"{found.tokens_per_s:.1f} tokens/s"


def compared(systems: Sequence[System], plan: Plan) -> Compared:
    peers = [system for system in systems if not system.is_ours]
    alone = next(cell for cell in plan.cells if cell.name == "1")
    return Compared(
        peers={peer.name: peer.modes for peer in peers if peer.precision == FLOAT32},
        quantised=[mode for peer in peers if peer.precision == QUANTISED for mode in peer.modes],
        fixed=list(fixed_arms()),
        lengths=[job.num_tokens for job in alone.jobs],
    )


def write_page(page: Path, results: Results, systems: Sequence[System], text: str) -> None:
    """What lies around the measured part of docs/performance.md stays."""
    pictures = draw(results, systems, page.parent)
    shown = "\n".join(f"![Tokens per second]({name})" for name in pictures)
    page.write_text(spliced(PAGE.read_text(encoding="utf-8"), f"{text}\n\n{shown}"))
    print(f"wrote {page}", file=sys.stderr)


def main() -> int:
    only = os.environ.get("ONLY", "")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends, too
    try:
        systems = chosen(only)
    except UnknownSystemError as error:
        print(error, file=sys.stderr)
        return 2
    size = QUICK if is_quick() else FULL
    size = replace(size, rounds=int(os.environ.get("ROUNDS") or size.rounds))
    FOLDER.mkdir(parents=True, exist_ok=True)
    plan, results = make_plan(size), Results()
    roofline = measure(resolve_model(MODEL), NUM_THREADS)
    Run(plan, results).run(systems)
    names = {key.partition("/")[0] for key in results.rounds}
    there = [system for system in systems if system.name in names]
    machine = f"{describe_machine()}; model {MODEL}"
    conditions = Conditions(machine, roofline, NUM_THREADS, size.max_tokens, size.rounds)
    taken = ratios(results, compared(systems, plan))
    text = markdown(results, there, conditions)
    if taken:
        text += f"\n\n### Ratios\n\n{ratio_table(taken)}"
    print(text)
    is_whole = not (only or is_quick() or os.environ.get("THREADS"))
    write_page(PAGE if is_whole else FOLDER / PAGE.name, results, there, text)
    print(json.dumps(document(results, taken)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
