"""How a model of transformers comes to the attention of a batch: the function `ATTENTION` names."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import AttentionInterface

from engine.kv_cache import Attends

ATTENTION = "hedgerow_paged"
_KNOWN = {"sliding_window", "position_ids", "use_cache", "is_causal", "cache_position"}


class UnsupportedAttention(Exception):
    """The model asks its attention for something that this one does not compute."""


class ShapeProbe:
    """Stands in for a batch in the first forward: records what each layer sends."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None = None
    ) -> Tensor:
        if layer in self.layers:
            raise UnsupportedAttention("a layer of it attends more than once for a token")
        self.layers[layer] = (k, v)
        return q.new_zeros(*q.shape[:2], v.shape[2])


def paged_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    batch: Attends,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **extra: object,
) -> tuple[Tensor, None]:
    """The function that transformers calls in every layer; raises UnsupportedAttention."""
    asked = {name for name, value in extra.items() if value is not None and value is not False}
    unknown = sorted(asked - _KNOWN)
    if unknown or attention_mask is not None:
        raise UnsupportedAttention(f"its attention needs {', '.join(unknown) or 'a mask'}")
    if not getattr(module, "is_causal", True):
        raise UnsupportedAttention("its attention looks ahead: it is an encoder")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer = module.layer_idx
    assert isinstance(layer, int), "transformers numbers its attention layers"
    q, k, v = (side[0].transpose(0, 1) for side in (query, key, value))
    return batch.attend(layer, q, k, v, scale, sliding_window)[None], None


AttentionInterface.register(ATTENTION, paged_attention)
