"""`python -m training.evaluate [DRAFTER ...]`: how good drafters are, on prompts of every domain.

The target answers held-out prompts once, greedy and sampled; all drafters, prompt lookup and suffix
too, are judged on these texts in hindsight. Prints a matrix and one JSON object at the end, draws
`build/drafters.png`, and with `--cards` writes each drafter's model card. A corpus of one's own is
one more column. QUICK=1: within 60 s.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.build import build_drafter
from engine.config import DrafterConfig
from engine.drafters.drafter import Drafter
from engine.drafters.folder import DrafterFolder, project_drafters
from engine.drafters.trained import drafter_of
from engine.errors import EngineError
from engine.model_files import EMBEDDED_MODEL
from training.acceptance import Examiner, Tested, examine
from training.card import write_card
from training.corpus import Corpus, CorpusError
from training.coupling import Coupling, compare
from training.domains import DomainError
from training.held_out import FULL, QUICK, Size, Texts, held_out_texts, of_domain
from training.hindsight import Scored, acceptance_by_depth, mean_acceptance_length, score
from training.machine import Machine, add_machine
from training.stop_rules import best_of, compare_rules
from training.student import load_student
from training.synthesise import Writer, load_writer
from training.timing import draft_seconds, speed_up, step_seconds

SAMPLED = 0.7
COUPLING_TEMPERATURES = (0.6, 1.0)


_RULE_LENGTH = 8
Matrix = Mapping[str, Mapping[str, float]]


class Evaluation:
    """Scores of drafters by domain, for one temperature."""

    def __init__(self, draft_length: int) -> None:
        self._draft_length = draft_length
        self.scored: dict[str, dict[str, list[Scored]]] = {}

    def judge(self, drafters: Sequence[Drafter], texts: Texts) -> None:
        for drafter in tqdm(drafters, desc="hindsight", unit="drafter"):
            self.scored[drafter.name] = {
                domain: score(drafter, found, domain) for domain, found in texts.items()
            }

    @property
    def matrix(self) -> Matrix:
        """Mean acceptance length of drafter by domain."""
        return {
            name: {
                domain: mean_acceptance_length(scored, self._draft_length)
                for domain, scored in row.items()
            }
            for name, row in self.scored.items()
        }

    def by_depth(self) -> dict[str, list[float]]:
        """Of each drafter over all domains."""
        return {
            name: acceptance_by_depth([s for scored in row.values() for s in scored],
                                      self._draft_length)
            for name, row in self.scored.items()
        }  # fmt: skip


def print_matrix(title: str, matrix: Matrix) -> None:
    columns = list(next(iter(matrix.values())))
    width = max(len(name) for name in matrix)
    print(f"\n{title}\n{'':{width}}  " + "  ".join(f"{column:>8}" for column in columns))
    for name, row in matrix.items():
        print(f"{name:{width}}  " + "  ".join(f"{row[column]:8.2f}" for column in columns))


def build_drafters(writer: Writer, folders: Sequence[DrafterFolder], longest: int) -> list[Drafter]:
    lookups = [
        DrafterConfig("lookup", "prompt_lookup", longest),
        DrafterConfig("suffix", "suffix", longest),
    ]
    trained = [
        DrafterConfig(each.path.name, each.card.kind, longest, path=str(each.path))
        for each in folders
    ]
    return [build_drafter(config, writer.target) for config in [*lookups, *trained]]


def couplings(
    writer: Writer, folders: Sequence[DrafterFolder], texts: Texts, size: Size
) -> dict[str, dict[str, Coupling]]:
    """Each drafter on its own domain, by temperature."""
    shared = writer.target.shared
    assert shared is not None, "a writer keeps states"
    found: dict[str, dict[str, Coupling]] = {}
    for folder in tqdm(folders, desc="shared noise"):
        student = load_student(folder, shared)
        own = of_domain(texts, folder.card.domain)
        found[folder.path.name] = {
            f"{t:g}": compare(student, shared.output, own, t, size.num_coupling_positions)
            for t in COUPLING_TEMPERATURES
        }
    return found


def calibrations(
    writer: Writer, folders: Sequence[DrafterFolder], texts: Texts
) -> dict[str, Tested]:
    """What drafters with an acceptance head draw along the texts of their domain."""
    shared = writer.target.shared
    assert shared is not None, "a writer keeps states"
    found = {}
    for folder in folders:
        if folder.card.num_acceptance_blocks is not None:
            examiner = Examiner(writer.target, load_student(folder, shared), 3)
            own = of_domain(texts, folder.card.domain)
            name = folder.path.name
            found[name] = examine(examiner, own, 0.0, 0, f"{name}: calibration")
    return found


def stop_rules(
    writer: Writer, folders: Sequence[DrafterFolder], texts: Texts, size: Size
) -> dict[str, dict[str, float]]:
    """The best of each rule against the best fixed length, of drafters with an acceptance head."""
    longest, found = _RULE_LENGTH, {}
    step_s = [step_seconds(writer.target, 1 + length) for length in range(longest + 1)]
    for folder in folders:
        if folder.card.num_acceptance_blocks is None:
            continue
        own = of_domain(texts, folder.card.domain)[: size.num_rule_texts]
        drafter = drafter_of(folder, writer.target, "timed", longest)
        first, last = (draft_seconds(drafter, own, length) for length in (1, longest))
        token_s = max(0.0, last - first) / (longest - 1)

        def round_s(length: int, first: float = first, token_s: float = token_s) -> float:
            return step_s[length] + first + token_s * (length - 1)

        rates = compare_rules(folder, writer.target, own, longest, round_s)
        fixed = best_of(rates, "fixed")
        found[folder.path.name] = {
            "head_vs_fixed": best_of(rates, "head") / fixed,
            "probability_vs_fixed": best_of(rates, "probability") / fixed,
            **rates,
        }
    return found


def run(
    writer: Writer,
    folders: Sequence[DrafterFolder],
    longest: int,
    size: Size,
    corpora: Sequence[Corpus] = (),
) -> dict[str, Any]:
    """Everything, also on held-out prompts of `corpora`; prints tables and gives the figures."""
    from training.plots import draw_calibration, draw_matrix  # needs matplotlib, as nothing else

    drafters = build_drafters(writer, folders, longest)
    greedy, sampled = Evaluation(longest), Evaluation(longest)
    greedy.judge(drafters, held_out_texts(writer, 0.0, size, corpora))
    texts = held_out_texts(writer, SAMPLED, size, corpora)
    sampled.judge(drafters, texts)
    coupled = couplings(writer, folders, texts, size)
    tested = calibrations(writer, folders, texts)
    draw_calibration("acceptance_heads.png", tested, folders)
    plain_s = step_seconds(writer.target, 1)
    verify_s = step_seconds(writer.target, longest + 1)
    draft_s = {each.name: draft_seconds(each, of_domain(texts, ""), longest) for each in drafters}
    matrix = greedy.matrix
    speed_ups = {
        name: {d: speed_up(value, plain_s, verify_s, draft_s[name]) for d, value in row.items()}
        for name, row in matrix.items()
    }
    print_matrix(f"greedy, draft length {longest}", matrix)
    print_matrix(f"temperature {SAMPLED:g}", sampled.matrix)
    print_matrix("expected speed-up, greedy, one stream", speed_ups)
    draw_matrix("drafters.png", f"mean acceptance length, draft length {longest}", matrix)
    return {
        "matrix": matrix,
        "sampled": sampled.matrix,
        "coupling_vs_rejection": {
            name: {t: {"shared_noise": c.shared_noise, "rejection": c.rejection_sampling,
                       "ratio": c.ratio} for t, c in row.items()}
            for name, row in coupled.items()
        },
        "stop_rules": stop_rules(writer, folders, texts, size),
        "acceptance_by_depth": greedy.by_depth(),
        "draft_ms": {name: 1000 * seconds for name, seconds in draft_s.items()},
        "expected_speed_up": speed_ups,
    }  # fmt: skip


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("drafters", type=Path, nargs="*", help="folders; all of models/ by default")
    made.add_argument("--target", default=EMBEDDED_MODEL)
    made.add_argument("--draft-length", type=int, default=5)
    made.add_argument(
        "--corpus",
        type=Path,
        action="append",
        default=[],
        help="a corpus whose held-out prompts are one more domain, or stand for the one it is of",
    )
    made.add_argument("--cards", action="store_true", help="write the drafters' model cards")
    add_machine(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    if find_spec("matplotlib") is None:  # rather than after all the work
        print("matplotlib is not installed: pip install 'hedgerow[dev]'", file=sys.stderr)
        return 1
    machine = Machine.of(given)
    size = QUICK if os.environ.get("QUICK", "") not in ("", "0") else FULL
    try:
        folders = [DrafterFolder.read(path) for path in given.drafters or project_drafters()]
        corpora = [Corpus.open(path) for path in given.corpus]
        writer = load_writer(given.target, size.num_tokens, machine)
        figures = run(writer, folders, given.draft_length, size, corpora)
    except (EngineError, CorpusError, DomainError) as error:
        print(error, file=sys.stderr)
        return 1
    if given.cards:
        for folder in folders:
            name = folder.path.name
            rows = {"greedy": figures["matrix"][name], f"T = {SAMPLED:g}": figures["sampled"][name]}
            print(write_card(folder, rows, given.draft_length))
    print(json.dumps(_rounded(figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
