"""Files that peers read: the target as a float32 GGUF, a drafter as a Hugging Face model.

Kept in `build/peers/`, written once. Both hold the numbers that we serve, no others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, ReaderField
from gguf.quants import dequantize
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from engine.drafters.folder import DrafterFolder, find_folder
from engine.drafters.trained import small_model_config
from engine.model_files import gguf_of, resolve_model
from engine.staged_folder import staged_folder

FOLDER = Path(__file__).parents[2] / "build" / "peers"
FLOAT32 = 0  # of the file types of GGUF
_OF_THE_WRITER = ("GGUF.", "general.architecture", "general.file_type")


def quantised_gguf(model: str) -> Path:
    """The file that the target's weights come from; ValueError for a model without one."""
    path = gguf_of(model)
    if path is None:
        raise ValueError(f"{model}: is no GGUF file")
    return path


def float_gguf(model: str) -> Path:
    """Every tensor of the quantised file as the float32 numbers that it stands for."""
    source = quantised_gguf(model)
    return _written(FOLDER / "gguf" / f"{source.stem}.F32.gguf", lambda to: _widen(source, to))


def _widen(source: Path, output: Path) -> None:
    reader = GGUFReader(source)
    writer = GGUFWriter(output, str(reader.fields["general.architecture"].contents()))
    writer.add_file_type(FLOAT32)
    for name, field in reader.fields.items():
        if not name.startswith(_OF_THE_WRITER):
            _copy(writer, name, field)
    for tensor in reader.tensors:
        floats = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, floats, raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy(writer: GGUFWriter, name: str, field: ReaderField) -> None:
    kind, *inner = field.types
    sub_type = inner[-1] if kind == GGUFValueType.ARRAY else None
    writer.add_key_value(name, field.contents(), kind, sub_type)


def stand_alone_drafter(path: str, model: str) -> Path:
    """A model drafter of `models/` with the target's whole vocabulary, as other engines want it.

    Ids that it does not draft have an output of zero, which the best of thousands of others
    exceeds.
    """
    folder = DrafterFolder.read(find_folder(path))
    output = FOLDER / "drafters" / folder.path.name
    if not output.is_dir():
        with staged_folder(output) as staged:
            _export(folder, staged, resolve_model(model))
    return output


def _export(folder: DrafterFolder, output: Path, target: Path) -> None:
    shape, weights = folder.card.shape, {}
    small, ids = folder.weights()
    embedding = small.pop("model.embed_tokens.weight")
    num_ids = folder.card.target.vocab_size
    weights["model.embed_tokens.weight"] = _spread(embedding, ids, num_ids, embedding[-1])
    weights["lm_head.weight"] = _spread(embedding, ids, num_ids, torch.zeros(shape.hidden_size))
    config = small_model_config(shape, num_ids)
    config.tie_word_embeddings = False
    config.max_position_embeddings = LlamaConfig.from_pretrained(target).max_position_embeddings
    config.dtype = torch.float32
    model = LlamaForCausalLM(config)
    model.load_state_dict({**small, **weights})
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(target).save_pretrained(output)


def _spread(rows: Tensor, ids: list[int], num_ids: int, other: Tensor) -> Tensor:
    """[len(ids) + 1, hidden] -> [num_ids, hidden]."""
    full = other.expand(num_ids, -1).clone()
    full[ids] = rows[: len(ids)]
    return full


def _written(path: Path, write: Callable[[Path], None]) -> Path:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".new")
        write(staged)
        staged.replace(path)
    return path
