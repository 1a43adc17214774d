"""From no data to drafters that are better than untrained ones, on a tiny target."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_target import write_tiny_target

from engine.build import build_drafter
from engine.config import DrafterConfig, TargetConfig
from engine.drafters.folder import DrafterFolder, FolderKind
from engine.drafters.shape import DrafterShape
from engine.loaded_target import LoadedTarget
from training import acceptance, drafter, evaluate, synthesise
from training.card import write_card
from training.corpus import Corpus, CorpusError, Text, read_texts
from training.distillation import Teacher
from training.held_out import Size, held_out_texts
from training.hindsight import mean_acceptance_length, score
from training.machine import Machine
from training.plan import Objective, Plan
from training.trainer import LOG, Schedule, TrainingError

torch.set_num_threads(1)
NUM_TEXTS = 96
NUM_STEPS = 100
SHAPES = {
    "head": DrafterShape(32, 1, 4, 2, 16, 64),
    "model": DrafterShape(32, 1, 2, 1, 16, 64),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target, and a domain of which there is nothing but a system prompt."""
    made = tmp_path_factory.mktemp("training")
    write_tiny_target(made / "target")
    (made / "birds.json").write_text(json.dumps({"system": "Birds."}))
    return made


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Path:
    assert synthesise_birds(folder, NUM_TEXTS) == 0
    return folder / "corpus"


def synthesise_birds(folder: Path, num_texts: int, *more: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthesise, "SHARD_SIZE", NUM_TEXTS // 2)
        return synthesise.main(
            [
                str(folder / "birds.json"),
                str(folder / "corpus"),
                *("--target", str(folder / "target"), "--source", "self"),
                *("--num-texts", str(num_texts), "--max-tokens", "24", *more),
            ]
        )


def plan(kind: FolderKind, num_steps: int) -> Plan:
    schedule = Schedule(num_steps, 1e-2, save_every=max(1, num_steps // 2))
    objective = Objective(num_steps=2, batch_size=8)
    return Plan(kind, "birds", SHAPES[kind], 200, schedule, objective)


def teacher_of(folder: Path) -> Teacher:
    return Teacher.load(str(folder / "target"))


def trained(folder: Path, corpus: Path, kind: FolderKind, num_steps: int) -> Path:
    name = f"{kind}-{num_steps}"
    work, output = folder / "work" / name, folder / name
    drafter.train(plan(kind, num_steps), [corpus], output, work, teacher_of(folder))
    return output


def acceptance_length(folder: Path, path: Path, texts: list[Text]) -> float:
    config = TargetConfig(str(folder / "target"), num_kv_tokens=2048, numerics="invariant")
    target = LoadedTarget.load(config, with_heads=True)
    kind = DrafterFolder.read(path).card.kind
    made = build_drafter(DrafterConfig("d", kind, 4, path=str(path)), target)
    return mean_acceptance_length(score(made, texts, "t"), 4)


def test_texts_are_the_targets_own_with_its_states(folder: Path, corpus: Path) -> None:
    found = list(Corpus.open(corpus).texts())
    assert len(found) > 0.9 * NUM_TEXTS  # some end at once
    assert {text.temperature for text in found} == {0.0, 0.7, 1.0}
    config = TargetConfig(str(folder / "target"), num_kv_tokens=2048, numerics="invariant")
    writer = synthesise.Writer(LoadedTarget.load(config, with_heads=True))
    for text in found[:12]:
        prompt, seed = text.tokens[: text.num_prompt_tokens], text.seed
        job = synthesise.Job(prompt, text.temperature, seed, 24)
        ((tokens, states),) = writer.write([job])
        assert tokens == text.tokens
        torch.testing.assert_close(states, text.states.float(), atol=2e-2, rtol=2e-2)


def test_a_corpus_goes_on_where_it_stopped(folder: Path, corpus: Path) -> None:
    before = [(corpus / f"shard-{i:05d}.safetensors").read_bytes() for i in range(2)]
    (corpus / "shard-00000.safetensors").unlink()
    assert synthesise_birds(folder, NUM_TEXTS) == 0
    after = [(corpus / f"shard-{i:05d}.safetensors").read_bytes() for i in range(2)]
    assert after == before


def test_a_corpus_made_otherwise_is_refused(
    folder: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert synthesise_birds(folder, NUM_TEXTS, "--seed", "5") == 1
    assert "holds texts made otherwise" in capsys.readouterr().err
    with pytest.raises(CorpusError, match="is no corpus"):
        Corpus.open(folder)


@pytest.mark.parametrize("kind", ["head", "model"])
def test_training_lowers_the_loss_and_raises_the_acceptance(
    folder: Path, corpus: Path, kind: FolderKind
) -> None:
    held_out = read_texts([corpus], held_out=True)
    assert held_out
    assert not {tuple(text.tokens) for text in held_out} & {
        tuple(text.tokens) for text in read_texts([corpus], held_out=False)
    }
    untrained, path = (trained(folder, corpus, kind, steps) for steps in (1, NUM_STEPS))
    lines = (folder / "work" / f"{kind}-{NUM_STEPS}" / LOG).read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert last["held_out_loss"] < first["held_out_loss"]
    texts = [*held_out, *read_texts([corpus], held_out=False, most=20)]
    before = acceptance_length(folder, untrained, texts)
    after = acceptance_length(folder, path, texts)
    assert after > before + 0.1


def test_a_training_can_begin_with_a_drafter_of_the_same_shape(folder: Path, corpus: Path) -> None:
    start = trained(folder, corpus, "head", NUM_STEPS)
    goes_on = replace(plan("head", 1), start=start)
    losses = {}
    for name, chosen in (("on", goes_on), ("anew", plan("head", 1))):
        work = folder / "work" / name
        drafter.train(chosen, [corpus], folder / name, work, teacher_of(folder))
        losses[name] = json.loads((work / LOG).read_text())["held_out_loss"]
    assert losses["on"] < losses["anew"]
    assert (
        "from the weights of" in json.loads((folder / "on" / "recipe.json").read_text())["recipe"]
    )
    wider = replace(goes_on, shape=replace(goes_on.shape, intermediate_size=96))
    with pytest.raises(TrainingError, match="is of DrafterShape"):
        drafter.train(wider, [corpus], folder / "on", folder / "wider", teacher_of(folder))


def test_a_drafter_is_judged_and_described(folder: Path, corpus: Path) -> None:
    path = trained(folder, corpus, "head", NUM_STEPS)
    target = str(folder / "target")
    acceptance_arguments = ["--num-texts", "24", "--unroll", "2", "--num-steps", "40"]
    arguments = [str(path), "--corpus", str(corpus), "--target", target, *acceptance_arguments]
    assert acceptance.main([*arguments, "--work", str(folder / "work" / "acceptance")]) == 0
    read = DrafterFolder.read(path)
    assert read.card.num_acceptance_blocks == 1
    tested, accepted = read.calibration() or ([], [])
    assert 0 < sum(accepted) < sum(tested)
    writer = synthesise.load_writer(target, 8, Machine())
    figures = evaluate.run(writer, [read], 3, Size(1, 8, 6, 1), [Corpus.open(corpus)])
    matrix, coupled = figures["matrix"], figures["coupling_vs_rejection"]
    assert isinstance(matrix, dict)
    assert isinstance(coupled, dict)
    assert set(matrix) == {"lookup", "suffix", path.name}
    assert all(set(row) == {"birds", "chat", "code", "edit", "math"} for row in matrix.values())
    assert all(1 <= value <= 4 for row in matrix.values() for value in row.values())
    for pair in coupled[path.name].values():
        assert 0 <= pair["shared_noise"] <= 1
        assert 0 <= pair["rejection"] <= 1
    rules = figures["stop_rules"]
    assert isinstance(rules, dict)
    assert rules[path.name]["head_vs_fixed"] > 0
    card = write_card(read, {"greedy": matrix[path.name]}, 3)
    assert f"# {path.name}" in card.read_text()
    assert "answers of the target" in card.read_text()
    assert "**Prompts** that these answer: the target's own inventions." in card.read_text()


def test_a_head_written_for_another_target_cannot_be_examined(
    folder: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_tiny_target(folder / "other", seed=9)
    path = trained(folder, corpus, "head", 1)
    arguments = [str(path), "--corpus", str(corpus), "--target", str(other)]
    assert acceptance.main([*arguments, "--work", str(folder / "work" / "other")]) == 1
    assert "drafts for" in capsys.readouterr().err


def test_a_corpus_of_another_target_is_no_ground_to_judge_on(folder: Path, corpus: Path) -> None:
    other = write_tiny_target(folder / "another", seed=8)
    writer = synthesise.load_writer(str(other), 8, Machine())
    with pytest.raises(CorpusError, match="has texts of"):
        held_out_texts(writer, 0.0, Size(1, 8, 6, 1), [Corpus.open(corpus)])
    with pytest.raises(CorpusError, match="not the only one of domain birds"):
        held_out_texts(writer, 0.0, Size(1, 8, 6, 1), [Corpus.open(corpus), Corpus.open(corpus)])


def test_without_matplotlib_evaluation_says_so_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert evaluate.main([]) == 1
    assert "pip install 'hedgerow[dev]'" in capsys.readouterr().err
