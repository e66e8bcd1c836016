"""A GGUF file becomes an ordinary transformers folder: config, tokenizer, one safetensors a block.

Names, permutations and tokenizer come from transformers' own GGUF support; here the tensors are
taken block by block, so that no more than one block is held in memory at a time.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.core_model_loading import revert_weight_conversion
from transformers.integrations.gguf.gguf_tokenizer_mapping import (
    convert_gguf_tokenizer,
    get_gguf_tokenizer,
)
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
    load_gguf_checkpoint,
)

from superbloom.domain.errors import DiskFull, ModelUnsupported, StorageFailed
from superbloom.inference.gguf_file import BLOCK, FOLDER_INSTEAD, no_support, open_gguf

logger = logging.getLogger(__name__)

INDEX_FILE = "model.safetensors.index.json"
ENDS_FILE = "model-ends.safetensors"

_ROPE_FACTORS = "rope_freqs.weight"
_ENDS = -1
_STORED = torch.bfloat16

# Vocabularies whose merges were learned with every digit standing alone.
_DIGIT_BY_DIGIT = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"})


def block_file(block: int) -> str:
    """The name of the file that holds one block."""
    return f"model-block-{block:04d}.safetensors"


def import_gguf(gguf: Path, folder: Path, *, progress: Callable[[int, int], None]) -> None:
    """Write the model in `gguf` into `folder` (made if absent) in bf16.

    `progress(done, total)` counts bytes of the GGUF's tensors. Raises ModelDamaged for a file that
    is cut short, contradicts itself or is no GGUF, ModelUnsupported for what transformers cannot
    read from GGUF, DiskFull, StorageFailed or OSError where a file cannot be written.
    Nothing here is atomic: the caller gives a folder of its own and moves it when this returns.
    """
    reader, architecture = open_gguf(gguf)
    progress(0, _tensor_bytes(reader))
    with no_support(f"A GGUF file of the family {architecture} cannot be imported"):
        config = _config_of(gguf, reader, architecture)
    folder.mkdir(parents=True, exist_ok=True)
    with no_support("The GGUF file's tokenizer cannot be used"):
        _write_tokenizer(gguf, reader, folder, config.max_position_embeddings)
    _write_tensors(reader, architecture, config, folder, progress)
    with no_support(f"A GGUF file of the family {architecture} cannot be imported"):
        config.save_pretrained(folder)
        _write_generation_config(config, folder)


def _tensor_bytes(reader: GGUFReader) -> int:
    return sum(int(tensor.n_bytes) for tensor in reader.tensors)


def _config_of(gguf: Path, reader: GGUFReader, architecture: str) -> PreTrainedConfig:
    """The configuration that the file's header describes."""
    values: dict[str, Any] = load_gguf_checkpoint(str(gguf))["config"]  # type: ignore[no-untyped-call]
    values.pop("_model_name_or_path", None)
    values.pop("unk_token_id", None)
    for key, value in values.items():
        if isinstance(value, float):
            # The header holds 32-bit floats: 1e-05 and not 9.99999974e-06.
            values[key] = float(str(np.float32(value)))
    if architecture == "llama" and any(tensor.name == _ROPE_FACTORS for tensor in reader.tensors):
        values["rope_parameters"] = _long_context_rope(reader, values)
        values.pop("rope_theta", None)
    head_size = reader.fields.get(f"{architecture}.attention.key_length")
    if head_size is not None:
        # Some families' readers leave it at its default.
        values["head_dim"] = int(head_size.contents())
    config = AutoConfig.for_model(**values)
    config.dtype = _STORED
    return config


def _long_context_rope(reader: GGUFReader, values: dict[str, Any]) -> dict[str, Any]:
    """Llama 3's frequency scaling, which GGUF keeps as one factor a frequency.

    The rule's parameters are found again and checked against the file's factors.
    """
    tensor = next(tensor for tensor in reader.tensors if tensor.name == _ROPE_FACTORS)
    factors = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float64)
    theta, original, low, high = float(values["rope_theta"]), 8192, 1.0, 4.0
    factor = float(factors.max())
    wavelengths = 2 * np.pi * theta ** (np.arange(len(factors)) / len(factors))
    smooth = np.clip((original / wavelengths - low) / (high - low), 0.0, 1.0)
    expected = 1.0 / ((1.0 - smooth) / factor + smooth)
    if not np.allclose(factors, expected, rtol=1e-3):
        raise ModelUnsupported(
            "The file scales its rotary positions in a way that is not known here.",
            FOLDER_INSTEAD,
        )
    return {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _write_tokenizer(gguf: Path, reader: GGUFReader, folder: Path, context_tokens: int) -> None:
    """tokenizer.json, tokenizer_config.json and the chat template."""
    tokenizer = _read_tokenizer(gguf, reader)
    tokenizer.model_max_length = context_tokens
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    # How it was loaded here says nothing about the model.
    content.pop("is_local", None)
    content.pop("local_files_only", None)
    if tokenizer.chat_template:
        # Older readers look for the template here and not in a file of its own.
        content["chat_template"] = tokenizer.chat_template
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_tokenizer(gguf: Path, reader: GGUFReader) -> Any:
    architecture, content, options = get_gguf_tokenizer(str(gguf))
    backend, _ = convert_gguf_tokenizer(architecture, content)
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, **options
    )
    splitting = reader.fields.get("tokenizer.ggml.pre")
    if splitting is not None and splitting.contents() in _DIGIT_BY_DIGIT:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    return tokenizer


def _write_generation_config(config: PreTrainedConfig, folder: Path) -> None:
    """The ids that end an answer, where transformers and others look for them."""
    GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    ).save_pretrained(folder)


def _write_tensors(
    reader: GGUFReader,
    architecture: str,
    config: PreTrainedConfig,
    folder: Path,
    progress: Callable[[int, int], None],
) -> None:
    """One file for the client's ends, one a block, and the index over them."""
    with no_support(f"A GGUF file of the family {architecture} cannot be imported"):
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=_STORED
            )
        processor_class = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
        processor = processor_class(config=config.to_dict())  # type: ignore[no-untyped-call]
        config.architectures = [type(model).__name__]
        names: dict[str, str] = get_gguf_hf_weights_map(_names_of(model), processor)

    parts: dict[int, list[Any]] = defaultdict(list)
    for tensor in reader.tensors:
        found = BLOCK.match(tensor.name)
        parts[int(found[1]) if found else _ENDS].append(tensor)

    wanted = _wanted_names(model)
    total = _tensor_bytes(reader)
    done = 0
    weight_map: dict[str, str] = {}
    written: set[str] = set()
    stored_bytes = 0
    for block in sorted(parts):
        tensors: dict[str, torch.Tensor] = {}
        for tensor in parts[block]:
            with no_support(f"The GGUF file's {tensor.name} cannot be used"):
                _read_tensor(tensor, processor, names, tensors)
            done += int(tensor.n_bytes)
            progress(done, total)
        written |= tensors.keys()
        kept = {name: value for name, value in tensors.items() if name in wanted}
        _check_shapes(kept, model)
        with no_support("The GGUF file's tensors cannot be used"):
            stored = revert_weight_conversion(model, kept)
        file = ENDS_FILE if block == _ENDS else block_file(block)
        _save({name: value.contiguous() for name, value in stored.items()}, folder / file)
        weight_map |= dict.fromkeys(stored, file)
        stored_bytes += sum(value.numel() * value.element_size() for value in stored.values())
    missing = sorted(wanted - written)
    if missing:
        raise ModelUnsupported(
            f"The GGUF file lacks {len(missing)} tensors of the family {architecture}, "
            f"among them {missing[0]}.",
            FOLDER_INSTEAD,
        )
    index = {"metadata": {"total_size": stored_bytes}, "weight_map": weight_map}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _save(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Write a safetensors file. Raises DiskFull, StorageFailed."""
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        # The library keeps the system's error as words only.
        if "space left" in str(error) or "quota" in str(error).lower():
            raise DiskFull(f"There is no space left to write {file}.") from error
        raise StorageFailed(f"{file} cannot be written: {error}.") from error


@dataclass(frozen=True, slots=True)
class _Names:
    """What transformers' map of names looks at in a model.

    It would go through every module and build its tables anew for each, which takes seconds.
    """

    config: PreTrainedConfig
    tensors: tuple[str, ...]
    children: tuple[tuple[str, _Names], ...] = ()

    def state_dict(self) -> tuple[str, ...]:
        return self.tensors

    def named_children(self) -> tuple[tuple[str, _Names], ...]:
        return self.children


def _names_of(model: PreTrainedModel) -> _Names:
    """The model's names, and its trunk's: some families' tables know only those."""
    trunk = _Names(model.config, tuple(model.base_model.state_dict()))
    return _Names(model.config, tuple(model.state_dict()), ((model.base_model_prefix, trunk),))


def _check_shapes(tensors: dict[str, torch.Tensor], model: PreTrainedModel) -> None:
    """Raises ModelUnsupported if the header has led to a model of other sizes than the tensors."""
    expected = model.state_dict()
    for name, value in tensors.items():
        if value.shape != expected[name].shape:
            raise ModelUnsupported(
                f"The GGUF file's {name} has the sizes {tuple(value.shape)}, where its family has "
                f"{tuple(expected[name].shape)}.",
                FOLDER_INSTEAD,
            )


def _wanted_names(model: PreTrainedModel) -> set[str]:
    """The model's own tensors, without those that only repeat another (a tied head)."""
    return set(model.state_dict()) - set(model.all_tied_weights_keys)


def _read_tensor(
    tensor: Any, processor: TensorProcessor, names: dict[str, str], into: dict[str, torch.Tensor]
) -> None:
    """Unpack one GGUF tensor into `into`, in bf16, under transformers' name."""
    if tensor.name == _ROPE_FACTORS:
        return
    weights = dequantize(tensor.data, tensor.tensor_type)
    merged: dict[str, torch.Tensor] = {
        # A processor that merges experts looks for the half that came before.
        name: value
        for name, value in into.items()
        if "experts" in name
    }
    result = processor.process(  # type: ignore[no-untyped-call]
        weights=weights,
        name=tensor.name,
        tensor_key_mapping=names,
        parsed_parameters={"tensors": merged},
    )
    for name, value in merged.items():
        into[name] = value.to(_STORED)
    if result.name is None:
        return
    if result.name not in names:
        raise ModelUnsupported(
            f"The GGUF file holds a tensor that its family does not have: {tensor.name}.",
            FOLDER_INSTEAD,
        )
    into[names[result.name]] = torch.from_numpy(np.array(result.weights)).to(_STORED)
