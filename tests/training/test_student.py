"""A head is trained on what it will compute when it drafts."""

from __future__ import annotations

import torch
from tiny_models import (
    UNDRAFTED,
    VOCAB,
    target_states,
    tiny_head,
    tiny_model,
)

from engine.drafters.head_model import HeadModel, SharedWeights
from engine.drafters.head_runner import HeadRoom, HeadRunner
from engine.drafters.shape import DrafterShape
from engine.reduced_vocabulary import ReducedVocabulary
from engine.runner import Extension
from training.corpus import Text
from training.student import Batch, HeadStudent, ModelStudent

NUM_STEPS = 4
TOKENS = [5, 9, 9, 14, 3, 50, 31, 8, 8, 21, 5, 17]


def filed_head() -> HeadModel:
    """With weights as a file has them, in 16 bits."""
    return tiny_head().half().float()


def student() -> HeadStudent:
    vocabulary = ReducedVocabulary([i for i in range(VOCAB) if i not in UNDRAFTED], VOCAB)
    made = HeadStudent(tiny_head().shape, SharedWeights.of(tiny_model()), vocabulary)
    made.module.load_state_dict(filed_head().state_dict())
    return made


def text(tokens: list[int], num_prompt_tokens: int = 3) -> Text:
    states = target_states(tuple(tokens))[: len(tokens) - 1]
    return Text("code", tokens, num_prompt_tokens, 0.0, 0, states)


def served(base: int) -> list[torch.Tensor]:
    """States of a draft from position `base` on, whose tokens are those of the text."""
    made = student()
    room = HeadRoom(16, 4, 0)
    shared = SharedWeights.of(tiny_model())
    runner = HeadRunner(filed_head(), shared, made.vocabulary, room, "fast")
    states = torch.cat([torch.zeros(1, 32), target_states(tuple(TOKENS))[: base - 1]])
    found = [runner.extend([Extension(TOKENS[:base], 0, range(16), 0)], states)[-1]]
    for step in range(1, NUM_STEPS):
        at = base + step - 1
        extension = Extension(TOKENS[at : at + 1], at, range(16), 0)
        found.append(runner.extend([extension], found[-1][None])[0])
    return found


def test_training_unrolls_a_head_as_drafting_does() -> None:
    with torch.no_grad():
        unrolled = student().states(Batch.of([text(TOKENS)], [0], 64, "cpu"), NUM_STEPS)
    for base in range(1, len(TOKENS) - NUM_STEPS):
        for step, expected in enumerate(served(base)):
            found = unrolled[step][0, base - 1 + step]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_other_texts_of_a_batch_and_what_follows_change_nothing() -> None:
    long, short = text(TOKENS), text(TOKENS[:7])
    with torch.no_grad():
        alone = student().states(Batch.of([short], [0], 64, "cpu"), NUM_STEPS)
        together = student().states(Batch.of([long, short], [0, 0], 64, "cpu"), NUM_STEPS)
    for one, both in zip(alone, together, strict=True):
        torch.testing.assert_close(one[0], both[1, :6], atol=1e-4, rtol=1e-4)


def test_a_model_takes_over_the_rows_of_the_ids_that_both_draft() -> None:
    shape = DrafterShape(16, 1, 1, 1, 16, 32)
    theirs, ours = (ModelStudent(shape, ReducedVocabulary(i, 12)) for i in ([2, 5, 7], [3, 5, 9]))
    (table, *_), before = theirs.module.parameters(), ours.module.state_dict()
    own_row = before["lm_head.weight"][0].clone()
    ours.take_over(theirs.weights(), [2, 5, 7])
    for name, weight in theirs.weights().items():
        if name != "model.embed_tokens.weight":
            assert torch.equal(before[name], weight)
    for ours_at, expected in ((0, own_row), (1, table[1]), (3, table[3])):
        assert torch.equal(before["lm_head.weight"][ours_at], expected)


def test_only_tokens_of_the_answer_are_learnt() -> None:
    batch = Batch.of([text(TOKENS, 5), text(TOKENS[:8], 2)], [2, 0], 6, "cpu")
    assert batch.tokens.tolist()[0] == TOKENS[2:8]
    assert batch.weights.tolist() == [[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]]
