"""Drafters as they are trained: dense, with gradients, over whole texts at once.

A head is unrolled: its first step runs on the target's states, every further one on its own, as it
will when it drafts. `tests/training/test_student.py` holds this to what is served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM

from engine.drafters.folder import DrafterFolder
from engine.drafters.head_model import HeadModel, SharedWeights
from engine.drafters.shape import DrafterShape
from engine.drafters.trained import small_model, small_model_weights
from engine.reduced_vocabulary import ReducedVocabulary
from training.corpus import Text


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts padded behind their end: tokens [batch, tokens], the target's states [.., hidden].

    `weights` [batch, tokens] is 1 where the next token is one of the answer, and known.
    """

    tokens: Tensor
    states: Tensor
    weights: Tensor

    @staticmethod
    def of(texts: Sequence[Text], starts: Sequence[int], length: int, device: str) -> Batch:
        """At most `length` tokens of each text from `starts` on."""
        spans = [
            (text, start, min(len(text.tokens) - 1, start + length))
            for text, start in zip(texts, starts, strict=True)
        ]
        longest = max(end - start for _, start, end in spans)
        hidden = texts[0].states.shape[-1]
        tokens = torch.zeros(len(spans), longest, dtype=torch.long)
        states = torch.zeros(len(spans), longest, hidden)
        weights = torch.zeros(len(spans), longest)
        for row, (text, start, end) in enumerate(spans):
            size = end - start
            tokens[row, :size] = torch.tensor(text.tokens[start:end])
            states[row, :size] = text.states[start:end]
            first = max(0, text.num_prompt_tokens - 1 - start)
            weights[row, first:size] = 1.0
        return Batch(tokens.to(device), states.to(device), weights.to(device))


class Student(Protocol):
    """What the steps of training need of a drafter. `module` has what is trained."""

    vocabulary: ReducedVocabulary
    shape: DrafterShape

    @property
    def module(self) -> nn.Module: ...

    def take_over(self, weights: dict[str, Tensor], ids: Sequence[int]) -> None:
        """The weights of another drafter of this shape, that drafts `ids`."""
        ...

    def states(self, batch: Batch, num_steps: int) -> list[Tensor]:
        """States [batch, tokens, hidden] that the next token is read off, by steps on the
        drafter's own states before them; a model has none of those, and one step."""
        ...

    def logits(self, states: Tensor) -> Tensor:
        """[.., hidden] -> [.., len(vocabulary)]"""
        ...

    def weights(self) -> dict[str, Tensor]:
        """What a drafter's folder holds."""
        ...


_EMBEDDING = "model.embed_tokens.weight"


class HeadStudent:
    """A head, with the target's embedding and the rows of its output layer."""

    def __init__(
        self, shape: DrafterShape, shared: SharedWeights, vocabulary: ReducedVocabulary
    ) -> None:
        self.module: HeadModel = HeadModel(shape).to(shared.output.device)
        self.vocabulary, self.shape = vocabulary, shape
        self._embed = shared.embed
        ids = torch.tensor(vocabulary.ids, device=shared.output.device)
        self._output = shared.output.index_select(0, ids).float()

    def start_from(self, states: Tensor) -> None:
        """First weights: the state of the token before comes through, as large as `states`."""
        size, model = self.shape.hidden_size, self.module
        with torch.no_grad():
            eye = torch.eye(size)
            model.fuse.weight.copy_(torch.cat([0.1 * eye, eye], 1))
            model.output_norm.weight.copy_(states.float().square().mean(0).sqrt())
            for name, weight in model.layers.named_parameters():
                if name.endswith(("out.weight", "down.weight")):
                    weight.zero_()

    def take_over(self, weights: dict[str, Tensor], ids: Sequence[int]) -> None:
        self.module.load_state_dict(weights)

    def states(self, batch: Batch, num_steps: int) -> list[Tensor]:
        with torch.no_grad():
            embedded = self._embed(batch.tokens).float()
        positions = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
        attention = UnrolledAttention()
        before, found = _shift(batch.states), []
        for _ in range(num_steps):
            found.append(self.module(embedded, before, positions, attention.of_next_step()))
            before = _shift(found[-1])
        return found

    def logits(self, states: Tensor) -> Tensor:
        return functional.linear(states, self._output)

    def weights(self) -> dict[str, Tensor]:
        return self.module.state_dict()


class ModelStudent:
    """A small model of its own."""

    def __init__(self, shape: DrafterShape, vocabulary: ReducedVocabulary) -> None:
        self.module: LlamaForCausalLM = small_model(shape, len(vocabulary))
        self.vocabulary, self.shape = vocabulary, shape

    def start_from(self, output: Tensor) -> None:
        """First weights: the target's output layer [vocab, hidden] on its main directions."""
        ids = torch.tensor(self.vocabulary.ids)
        rows = output.index_select(0, ids).float()
        directions = torch.linalg.eigh(rows.T @ rows)[1][:, -self.shape.hidden_size :]
        table = rows @ directions
        with torch.no_grad():
            weight = self.module.get_input_embeddings().weight
            assert isinstance(weight, Tensor)
            weight.zero_()
            weight[: len(ids), : table.shape[1]] = table / table.std() / self.shape.hidden_size**0.5

    def take_over(self, weights: dict[str, Tensor], ids: Sequence[int]) -> None:
        """Ids that only this one drafts keep the rows that they have."""
        theirs = weights.pop(_EMBEDDING)
        ours = self.module.get_input_embeddings().weight
        assert isinstance(ours, Tensor)
        with torch.no_grad():
            places = torch.from_numpy(self.vocabulary.places(ids))
            known = places < len(self.vocabulary)
            ours[places[known]] = theirs[:-1][known].to(ours)
            ours[-1] = theirs[-1].to(ours)
        self.module.load_state_dict(weights, strict=False)

    def states(self, batch: Batch, num_steps: int) -> list[Tensor]:
        places = torch.from_numpy(self.vocabulary.places(batch.tokens.flatten().tolist()))
        ids = places.view_as(batch.tokens).to(batch.tokens.device)
        return [self.module.model(input_ids=ids, use_cache=False).last_hidden_state]

    def logits(self, states: Tensor) -> Tensor:
        out: Tensor = self.module.lm_head(states)
        return out[..., : len(self.vocabulary)]

    def weights(self) -> dict[str, Tensor]:
        return small_model_weights(self.module)


def load_student(folder: DrafterFolder, shared: SharedWeights) -> Student:
    """A drafter that was written before, as it is served: with its weights in 16 bits, on its
    target's device."""
    weights, ids = folder.weights()
    vocabulary = ReducedVocabulary(ids, folder.card.target.vocab_size)
    student: HeadStudent | ModelStudent
    if folder.card.kind == "head":
        student = HeadStudent(folder.card.shape, shared, vocabulary)
    else:
        student = ModelStudent(folder.card.shape, vocabulary)
    student.take_over(weights, ids)
    module: nn.Module = student.module
    module.to(shared.output.device).eval()
    return student


def _shift(states: Tensor) -> Tensor:
    """Each token gets the state of the one before it, the first zeros."""
    return functional.pad(states, (0, 0, 1, 0))[:, :-1]


class UnrolledAttention:
    """Attention of step s at token i: the first step's keys up to i - s, and of each further step
    m <= s the one key of the same draft, at token i - s + m."""

    def __init__(self) -> None:
        self._steps: list[dict[int, tuple[Tensor, Tensor]]] = []

    def of_next_step(self) -> UnrolledAttention:
        self._steps.append({})
        return self

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [batch, heads, tokens, dim] -> [batch, tokens, heads, dim]"""
        self._steps[-1][layer] = (k, v)
        last = len(self._steps) - 1
        if last == 0:
            attended = functional.scaled_dot_product_attention
            return attended(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)
        groups = q.shape[1] // k.shape[1]
        keys, values = (side.repeat_interleave(groups, 1) for side in self._steps[0][layer])
        num_tokens = q.shape[2]
        scores = [q @ keys.transpose(-1, -2)]
        at = torch.arange(num_tokens, device=q.device)
        hidden = at[None, :] > at[:, None] - last
        scores[0] = scores[0].masked_fill(hidden, float("-inf"))
        own_values = []
        for step in range(1, last + 1):
            back = last - step
            own_keys, own = (
                _later(side.repeat_interleave(groups, 1), back) for side in self._steps[step][layer]
            )
            own_scores = (q * own_keys).sum(-1, keepdim=True)
            scores.append(own_scores.masked_fill((at < back)[:, None], float("-inf")))
            own_values.append(own)
        weights = (torch.cat(scores, -1) * q.shape[-1] ** -0.5).softmax(-1)
        out: Tensor = weights[..., :num_tokens] @ values
        for column, own in enumerate(own_values):
            out = out + weights[..., num_tokens + column, None] * own
        return out.transpose(1, 2)


def _later(side: Tensor, num_tokens: int) -> Tensor:
    """[batch, heads, tokens, dim], each row moved `num_tokens` places on."""
    if not num_tokens:
        return side
    return functional.pad(side, (0, 0, num_tokens, 0))[:, :, :-num_tokens]
