"""Embeddings + the model's own blocks + logits are the whole model, for every family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from superbloom.domain.errors import ModelDamaged, ModelNotHere
from superbloom.domain.model_card import Precision
from superbloom.inference import ends as ends_module
from superbloom.inference.cpu.int8 import Int8Linear
from superbloom.inference.ends import EMBED_TOKENS, ClientEnds

CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 97,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
POSITIONS = 2 * EMBED_TOKENS + 64
CONFIGS: dict[str, PretrainedConfig] = {
    "bloom": BloomConfig(**{**SIZES, "n_layer": 3, "n_head": 4}),
    "llama": LlamaConfig(**GROUPED),
    "llama tied": LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "falcon": FalconConfig(**SIZES, new_decoder_architecture=True, num_kv_heads=2),
    "falcon alibi": FalconConfig(**SIZES, alibi=True, bias=True),
    "mixtral": MixtralConfig(**GROUPED, num_local_experts=4),
    "qwen2": Qwen2Config(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED),
    "gemma2": Gemma2Config(**GROUPED, final_logit_softcapping=3.0, sliding_window=8),
    "gemma3": Gemma3TextConfig(**GROUPED, final_logit_softcapping=3.0, sliding_window=8),
    "gpt-oss": GptOssConfig(
        **GROUPED, num_local_experts=4, num_experts_per_tok=2, sliding_window=8
    ),
    "gpt-neox": GPTNeoXConfig(**SIZES, intermediate_size=48),
    "opt": OPTConfig(
        **SIZES, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=POSITIONS
    ),
    "opt projected": OPTConfig(
        **SIZES, ffn_dim=48, word_embed_proj_dim=16, max_position_embeddings=POSITIONS
    ),
    "opt norm after": OPTConfig(
        **SIZES,
        ffn_dim=48,
        word_embed_proj_dim=32,
        do_layer_norm_before=False,
        max_position_embeddings=POSITIONS,
    ),
    "cohere": CohereConfig(**GROUPED, logit_scale=0.25),
    "granite": GraniteConfig(**GROUPED, embedding_multiplier=3.0, logits_scaling=5.0),
}


def random_model(config: PretrainedConfig, folder: Path) -> PreTrainedModel:
    """A model with every weight random, norms and biases included, saved into `folder`."""
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    model.save_pretrained(folder)
    return model


def whole(
    model: PreTrainedModel, ids: list[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What enters the first block and leaves the last, and the logits."""
    blocks = next(
        module
        for module in model.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == 3
    )
    seen: dict[str, torch.Tensor] = {}

    def entering(_module, arguments, named):
        seen["in"] = arguments[0] if arguments else named["hidden_states"]

    def leaving(_module, _arguments, output):
        seen["out"] = output[0] if isinstance(output, tuple) else output

    hooks = [
        blocks[0].register_forward_pre_hook(entering, with_kwargs=True),
        blocks[-1].register_forward_hook(leaving),
    ]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return seen["in"][0], seen["out"][0], logits[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_ends_are_exactly_the_models_own(name, tmp_path):
    model = random_model(CONFIGS[name], tmp_path)
    ids = torch.randint(3, 97, (EMBED_TOKENS + 20,)).tolist()
    entering, leaving, logits = whole(model, ids)

    ends = ClientEnds.load(tmp_path, precision=Precision.FP32, device=CPU)

    torch.testing.assert_close(ends.embed(ids, 0), entering, rtol=0, atol=1e-6)
    torch.testing.assert_close(ends.embed(ids[9:12], 9), entering[9:12], rtol=0, atol=1e-6)
    spans = ((20, 21), (9, 12), (0, 1), (20, 22))
    parts = ends.embed_each([(ids[first:end], first) for first, end in spans])
    for part, (first, end) in zip(parts, spans, strict=True):
        torch.testing.assert_close(part, entering[first:end], rtol=0, atol=1e-6)
    torch.testing.assert_close(ends.logits(leaving), logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(ends.logits(leaving[-1:]), logits[-1:], rtol=0, atol=1e-5)
    assert (ends.vocabulary, ends.hidden_size, ends.dtype) == (97, 32, torch.float32)


def test_blocks_are_neither_needed_nor_kept(tmp_path):
    model = random_model(CONFIGS["llama"], tmp_path)
    ids = [5, 6, 7]
    entering, _, _ = whole(model, ids)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = {
        name: "ends.safetensors" if ".layers." not in name else "gone.safetensors"
        for name in tensors
    }
    save_file(
        {n: t for n, t in tensors.items() if names[n] == "ends.safetensors"},
        tmp_path / "ends.safetensors",
    )
    index = {"metadata": {}, "weight_map": names}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))

    ends = ClientEnds.load(tmp_path, precision=Precision.FP32, device=CPU)

    torch.testing.assert_close(ends.embed(ids, 0), entering, rtol=0, atol=1e-6)
    inner = (*ends._model.named_parameters(), *ends._model.named_buffers())
    held = sum(tensor.numel() for name, tensor in inner if name.endswith("weight"))
    assert held == 2 * 97 * 32 + 32


@pytest.mark.parametrize(
    ("family", "old_names"),
    [
        ("bloom", {"transformer.": ""}),
        ("llama", {"model.": ""}),
        ("gpt-neox", {"lm_head.": "embed_out."}),
        ("opt", {"model.decoder.": "decoder."}),
    ],
)
def test_names_of_older_checkpoints(family, old_names, tmp_path):
    model = random_model(CONFIGS[family], tmp_path)
    ids = [5, 6, 7]
    entering, leaving, logits = whole(model, ids)
    file = tmp_path / "model.safetensors"
    renamed = {}
    for name, tensor in load_file(file).items():
        for new, old in old_names.items():
            name = old + name[len(new) :] if name.startswith(new) else name  # noqa: PLW2901
        renamed[name] = tensor
    save_file(renamed, file, metadata={"format": "pt"})

    ends = ClientEnds.load(tmp_path, precision=Precision.FP32, device=CPU)

    torch.testing.assert_close(ends.embed(ids, 0), entering, rtol=0, atol=1e-6)
    torch.testing.assert_close(ends.logits(leaving), logits, rtol=0, atol=1e-5)


def test_bf16_scores_are_float32_and_near(tmp_path):
    model = random_model(CONFIGS["gemma3"], tmp_path)
    _, leaving, logits = whole(model, [5, 6, 7])
    ends = ClientEnds.load(tmp_path, precision=Precision.BF16, device=CPU)
    assert ends.embed([5], 0).dtype == torch.bfloat16
    scores = ends.logits(leaving)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, logits, rtol=0.05, atol=0.05)


def test_a_missing_head_is_told(tmp_path):
    random_model(CONFIGS["llama"], tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {n: t for n, t in load_file(file).items() if n != "lm_head.weight"}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelDamaged, match="lm_head"):
        ClientEnds.load(tmp_path, precision=Precision.FP32, device=CPU)


def test_a_head_of_another_shape_is_told(tmp_path):
    random_model(CONFIGS["llama"], tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = torch.zeros(7)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelDamaged, match=r"norm\.weight"):
        ClientEnds.load(tmp_path, precision=Precision.FP32, device=CPU)


def test_no_folder_is_told(tmp_path):
    with pytest.raises(ModelNotHere):
        ClientEnds.load(tmp_path / "nothing", precision=Precision.FP32, device=CPU)


def test_a_head_in_8_bits_is_near_and_smaller(tmp_path):
    model = random_model(CONFIGS["llama tied"], tmp_path)
    ids = list(range(5, 25))
    entering, leaving, logits = whole(model, ids)
    ends = ClientEnds.load(tmp_path, precision=Precision.INT8, device=CPU)
    torch.testing.assert_close(ends.embed(ids, 0).float(), entering, rtol=0.01, atol=0.01)
    for rows in (1, len(ids)):
        found, expected = ends.logits(leaving[:rows]), logits[:rows]
        assert float((found - expected).norm() / expected.norm()) < 0.02
    assert any(isinstance(module, Int8Linear) for module in ends._model.modules())


@pytest.mark.parametrize("name", CONFIGS)
def test_mapped_ends_are_exactly_the_models_own(name, tmp_path, monkeypatch):
    monkeypatch.setattr(ends_module, "MAPPED_BYTES", 1)
    model = random_model(CONFIGS[name], tmp_path)
    ids = list(range(5, 15))
    entering, leaving, logits = whole(model, ids)
    ends = ClientEnds.load(tmp_path, precision=Precision.BF16, device=CPU)
    assert ends.dtype is torch.float32
    torch.testing.assert_close(ends.embed(ids, 0), entering, rtol=0, atol=1e-6)
    torch.testing.assert_close(ends.logits(leaving), logits, rtol=0, atol=1e-5)
