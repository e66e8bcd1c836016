from __future__ import annotations

import pytest
from transformers import DeepseekV3Config, Gemma3TextConfig, LlamaConfig, Qwen3MoeConfig

from superbloom.domain.errors import ModelUnsupported
from superbloom.domain.span import Span
from superbloom.inference.families import (
    MOST_BLOCKS,
    block_count,
    slice_config,
    text_config,
    text_name,
)


def test_lists_with_an_entry_a_block_are_sliced() -> None:
    config = Gemma3TextConfig(num_hidden_layers=8, sliding_window=64)
    sliced = slice_config(config, Span(4, 7))
    assert sliced.num_hidden_layers == 3
    assert sliced.layer_types == config.layer_types[4:7]
    assert "full_attention" in sliced.layer_types
    assert block_count(config) == 8, "the original is untouched"


def test_lists_of_block_numbers_move_with_the_start() -> None:
    config = Qwen3MoeConfig(num_hidden_layers=6, mlp_only_layers=[0, 3, 4])
    assert slice_config(config, Span(2, 5)).mlp_only_layers == [1, 2]


def test_counts_of_blocks_at_the_models_start_shrink() -> None:
    config = DeepseekV3Config(num_hidden_layers=6, first_k_dense_replace=3)
    assert slice_config(config, Span(1, 6)).first_k_dense_replace == 2
    assert slice_config(config, Span(4, 6)).first_k_dense_replace == 0


def test_a_list_that_only_happens_to_be_as_long_stays() -> None:
    config = LlamaConfig(num_hidden_layers=3, eos_token_id=[1, 2, 3])
    assert slice_config(config, Span(0, 1)).eos_token_id == [1, 2, 3]


def test_blocks_beyond_the_model_cannot_be_sliced() -> None:
    with pytest.raises(ValueError, match="a model that has 2"):
        slice_config(LlamaConfig(num_hidden_layers=2), Span(1, 3))


def test_the_text_part_of_a_model_with_eyes_is_taken() -> None:
    text = text_config({"model_type": "gemma3", "text_config": {"num_hidden_layers": 5}})
    assert (text.model_type, text.num_hidden_layers) == ("gemma3_text", 5)
    assert text_name("model.language_model.layers.3.x") == "model.layers.3.x"
    assert text_name("language_model.model.layers.3.x") == "model.layers.3.x"
    assert text_name("model.layers.3.x") == "model.layers.3.x"


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "of-my-own"},
        {"model_type": ["llama"]},
        {"model_type": "llama", "num_hidden_layers": 0},
        {"model_type": "llama", "num_hidden_layers": "many"},
        {"model_type": "llama", "num_hidden_layers": MOST_BLOCKS + 1},
        {"model_type": "qwen3", "num_hidden_layers": 10**18},
        {"model_type": "bloom", "n_layer": 10**18},
        {"model_type": "gemma3", "text_config": {"num_hidden_layers": 10**18}},
        {"model_type": "mixtral", "num_local_experts": 10**18},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ModelUnsupported):
        text_config(config)
