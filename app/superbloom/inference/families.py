"""Families of models: their configuration, a configuration for some blocks, and the exceptions.

Everything else about a family is transformers' business: a family that is in no table here is
loaded the same way, after `self_check` has tried it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from transformers import CONFIG_MAPPING, PretrainedConfig

from superbloom.domain.errors import ModelUnsupported
from superbloom.domain.span import Span

KNOWN: frozenset[str] = frozenset(
    {
        "bloom",
        "falcon",
        "gemma3_text",
        "gpt_neox",
        "gpt_oss",
        "llama",
        "mixtral",
        "opt",
        "qwen2",
        "qwen3",
    }
)
"""Families whose exactness the tests show; any other is tried by `self_check` first."""

ALONE: frozenset[str] = frozenset({"bloom", "falcon"})
"""Families whose attention does not go through transformers' interface: one session a forward."""

MOST_BLOCKS = 10_000
"""No configuration with more blocks, or experts a block, is built."""

ABSOLUTE_LISTS: frozenset[str] = frozenset({"mlp_only_layers", "moe_layers"})
"""Lists of block numbers, which move with the span's start."""

FIRST_DENSE: frozenset[str] = frozenset({"first_k_dense_replace"})
"""Counts of blocks at the model's start that differ from the rest."""

_TINY: Mapping[str, int] = {
    "vocab_size": 128,
    "intermediate_size": 64,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "ffn_dim": 64,
    "ffn_hidden_size": 64,
    "n_inner": 64,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "sliding_window": 8,
    "attention_chunk_size": 8,
}
"""The largest sizes of a model that is only tried; windows so short that they matter."""

TINY_BLOCKS = 6
TINY_HEAD = 16

_PER_BLOCK = re.compile(r"layer|block|head")
_COUNT = re.compile(r"(?:layers?|experts)$")
_TEXT_PREFIX = re.compile(r"^(?:model\.language_model\.|language_model\.model\.|language_model\.)")


def text_config(config: Mapping[str, object]) -> PretrainedConfig:
    """The configuration of the model's text part. Raises ModelUnsupported.

    Code that a model brings along is never run.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or family not in CONFIG_MAPPING:
        raise ModelUnsupported(f"Models of the kind {family!r} are not known to this version.")
    try:
        _check_counts(config)  # some families make a list of that length
        whole = CONFIG_MAPPING[family].from_dict(dict(config))
        text: PretrainedConfig = whole.get_text_config(decoder=True)
        if not 1 <= text.num_hidden_layers <= MOST_BLOCKS or text.hidden_size < 1:
            raise ValueError(f"{text.num_hidden_layers} blocks of {text.hidden_size} values")
    except Exception as error:  # a foreign file's checks raise what they like
        raise ModelUnsupported(f"The model's configuration makes no sense: {error}.") from error
    return text


def _check_counts(config: Mapping[str, object]) -> None:
    """Raises ValueError for counts of blocks and experts that are out of all reason."""
    for key, value in config.items():
        if isinstance(value, dict):
            _check_counts(value)
        elif isinstance(value, int) and value > MOST_BLOCKS and _COUNT.search(key):
            raise ValueError(f"{key} is {value}")


def block_count(config: PretrainedConfig) -> int:
    """How many blocks the model has."""
    return int(config.num_hidden_layers)


def slice_config(config: PretrainedConfig, blocks: Span) -> PretrainedConfig:
    """The configuration of a model that has only `blocks` of this one.

    Lists with an entry a block are sliced, lists of block numbers are moved.
    """
    count = block_count(config)
    if blocks.end > count:
        raise ValueError(f"blocks {blocks} of a model that has {count}")
    content = config.to_dict()
    names: Mapping[str, str] = getattr(config, "attribute_map", {})
    for key, value in content.items():
        if key in ABSOLUTE_LISTS and isinstance(value, list):
            content[key] = [block - blocks.start for block in value if block in blocks]
        elif key in FIRST_DENSE and isinstance(value, int):
            content[key] = max(0, value - blocks.start)
        elif isinstance(value, list | tuple) and len(value) == count and _PER_BLOCK.search(key):
            content[key] = list(value[blocks.start : blocks.end])
    content[names.get("num_hidden_layers", "num_hidden_layers")] = len(blocks)
    content.pop("quantization_config", None)
    return type(config).from_dict(content)


def tiny_config(config: PretrainedConfig, *, narrow: bool) -> PretrainedConfig:
    """A configuration of the same family with few blocks and small sizes, to try the family.

    `narrow` False leaves the heads' size as it is.
    """
    sliced = slice_config(config, Span(0, min(block_count(config), TINY_BLOCKS)))
    content = sliced.to_dict()
    for key, largest in _TINY.items():
        value = content.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            content[key] = min(value, largest)
    for key in [key for key in content if key.endswith("_token_id")]:
        content[key] = None
    names: Mapping[str, str] = getattr(config, "attribute_map", {})
    heads = getattr(config, "num_attention_heads", None)
    if isinstance(heads, int):
        shared = getattr(config, "num_key_value_heads", None) or heads
        few = min(heads, 2 if shared == heads else 2 * (heads // shared))
        content[names.get("num_attention_heads", "num_attention_heads")] = few
        head = TINY_HEAD if narrow else config.hidden_size // heads
        content[names.get("hidden_size", "hidden_size")] = few * head
        if "num_key_value_heads" in content:
            content["num_key_value_heads"] = max(1, few * shared // heads)
        if narrow and content.get("head_dim") is not None:
            content["head_dim"] = TINY_HEAD
    return type(config).from_dict(content)


def text_name(name: str) -> str:
    """A tensor's name as it is in the checkpoint of the text part alone."""
    return _TEXT_PREFIX.sub("model.", name)
