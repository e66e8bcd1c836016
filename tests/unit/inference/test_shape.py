import pytest
import torch
from torch import nn
from transformers import CONFIG_MAPPING

from superbloom.domain.catalogue import read_catalogue
from superbloom.domain.errors import ModelUnsupported
from superbloom.domain.model_card import Precision
from superbloom.inference import shape
from superbloom.inference.cpu.fast_linears import holds_half
from superbloom.inference.shape import shape_of, shape_on
from superbloom.storage.paths import resource

CATALOGUE = read_catalogue(resource("catalogue", "models.json").read_text(encoding="utf-8"))

FUSED = {"mixtral", "gpt_oss", "qwen3_moe"}
"""Families whose experts are one tensor, which is not quantized."""

# Totals as the models' makers publish them.
PUBLISHED = {
    "smollm2-135m-instruct": 134_515_008,
    "smollm2-1.7b-instruct": 1_711_376_384,
    "qwen3-0.6b": 596_049_920,
    "llama-3.2-1b-instruct": 1_235_814_400,
    "llama-3.2-3b-instruct": 3_212_749_824,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "llama-3.3-70b-instruct": 70_553_706_496,
    "gpt-oss-120b": 116_829_156_672,
    "mixtral-8x22b-instruct": 140_630_071_296,
    "bloom-176b": 176_247_271_424,
    "qwen3-235b-a22b": 235_093_634_560,
    "llama-3.1-405b-instruct": 405_853_388_800,
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_computed_total_is_the_published_one(model):
    assert shape_of(CATALOGUE.find(model).config).parameters == PUBLISHED[model]


def test_the_published_falcon_counts_its_tied_head_twice():
    computed = shape_of(CATALOGUE.find("falcon-180b-chat").config)
    assert computed.parameters + computed.vocabulary * computed.hidden_size == 179_522_565_120


def test_every_model_of_the_catalogue_has_a_shape():
    for card in CATALOGUE:
        computed = shape_of(card.config)
        assert computed.blocks > 0
        assert computed.cache_bytes_per_token > 0
        assert computed.context_tokens >= 2048
        sizes = computed.block_bytes
        assert sizes[Precision.FP32] == 2 * sizes[Precision.BF16]
        if computed.family in FUSED:
            assert not sizes.keys() & {Precision.INT8, Precision.NF4}
        else:
            assert sizes[Precision.INT8] < 0.51 * sizes[Precision.BF16]
            assert sizes[Precision.NF4] < 0.27 * sizes[Precision.BF16]


def test_the_starter_in_all_its_sizes():
    computed = shape_of(CATALOGUE.find("smollm2-135m-instruct").config)
    hidden, inner, keys = 576, 1536, 192
    weights = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner
    assert computed.family == "llama"
    assert computed.block_bytes[Precision.BF16] == 2 * (weights + 2 * hidden)
    rows = 2 * hidden + 2 * keys + 2 * inner + hidden
    assert computed.block_bytes[Precision.INT8] == weights + 4 * rows + 2 * 2 * hidden
    assert computed.client_bytes == 2 * (49152 * hidden + hidden)
    assert computed.cache_bytes_per_token == 2 * 2 * keys


@pytest.mark.skipif(not holds_half(torch.float32), reason="PyTorch has no FBGEMM here")
def test_a_cpu_holds_weights_of_16_bits_as_they_are():
    published = shape_of(CATALOGUE.find("smollm2-135m-instruct").config)
    assert published.published_bytes == 2
    held = shape_on(torch.device("cpu"), published)
    assert held.block_bytes[Precision.FP32] == published.block_bytes[Precision.BF16]
    assert dict(held.block_bytes) == {
        **published.block_bytes,
        Precision.FP32: held.block_bytes[Precision.FP32],
    }
    assert shape_on(torch.device("cuda", 0), published) == published


@pytest.mark.parametrize(
    ("family", "dtype", "size"),
    [("llama", None, 4), ("llama", "float32", 4), ("mixtral", "bfloat16", 2)],
)
def test_other_weights_become_wider_on_a_cpu(family, dtype, size):
    """Those of 32 bits, and those of fused experts, which are not linear layers."""
    config = CONFIG_MAPPING[family](num_hidden_layers=1).to_dict() | {"dtype": dtype}
    published = shape_of(config)
    assert published.published_bytes == size
    assert shape_on(torch.device("cpu"), published) == published


def test_blocks_of_several_kinds_are_each_counted():
    config = {
        "model_type": "qwen3_moe",
        "hidden_size": 32,
        "intermediate_size": 64,
        "moe_intermediate_size": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 3,
        "mlp_only_layers": [1],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": 64,
    }
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    assert shape_of(config).parameters == sum(item.numel() for item in whole.parameters())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("rows", "columns"), [(192, 576), (1536, 576), (7, 96)])
def test_nf4_sizes_are_those_of_bitsandbytes(rows, columns):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    weight = bitsandbytes.nn.Params4bit(
        torch.randn(rows, columns), requires_grad=False, quant_type="nf4"
    ).to("cpu")
    state = weight.quant_state
    parts = [weight.data, state.absmax, state.code]
    parts += [state.state2.absmax, state.state2.code, state.offset]
    linear = nn.Linear(columns, rows, bias=False, device="meta")
    assert shape._nf4_bytes(linear.weight) == sum(part.nbytes for part in parts)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "no_such_family"},
        {"model_type": "llama", "hidden_size": 0},
        {"model_type": "llama", "hidden_size": "wide"},
        {"model_type": "llama", "num_hidden_layers": -1},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_in_words(config):
    with pytest.raises(ModelUnsupported):
        shape_of(config)


@pytest.mark.parametrize(
    "family",
    [
        *("mamba", "mamba2", "jamba", "bamba", "qwen3_next", "zamba2", "falcon_h1"),
        *("granitemoehybrid", "minimax", "xlnet", "biogpt"),
    ],
)
def test_a_family_that_cannot_be_served_is_refused_in_words(family):
    with pytest.raises(ModelUnsupported):
        shape_of(CONFIG_MAPPING[family]().to_dict())
