import json
import random
from collections import Counter

import gguf
import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from superbloom.domain.errors import DiskFull, ModelDamaged, ModelUnsupported
from superbloom.inference import gguf_import
from superbloom.inference.gguf_import import import_gguf

TOKENS = ["<|end|>", "<|start|>", *(chr(code) for code in range(33, 127)), "Ġ", "he", "Ġhe"]
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": len(TOKENS),
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 0,
}
NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def permuted(weight, heads):
    """The order of rows in which llama.cpp keeps query and key projections."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, model, architecture, *, extra=(), skip=()):
    """`model` as llama.cpp's converter writes it, in F32."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3] + [1] * (len(TOKENS) - 2))
    writer.add_token_merges(["h e", "Ġ he"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_chat_template("{% for m in messages %}<|start|>{{ m['content'] }}{% endfor %}")
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem = name.removesuffix(".weight")
        if stem in ENDS:
            written = ENDS[stem] + ".weight"
        else:
            _, _, block, rest = stem.split(".", 3)
            written = f"blk.{block}.{NAMES[rest]}.weight"
        data = value.numpy()
        if architecture == "llama" and ".attn_q." in written:
            data = permuted(data, config.num_attention_heads)
        if architecture == "llama" and ".attn_k." in written:
            data = permuted(data, config.num_key_value_heads)
        if written not in skip:
            writer.add_tensor(written, np.ascontiguousarray(data))
    for name, data in extra:
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tiny_llama(*, tied=False):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied)).eval()


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits.float()


@pytest.mark.parametrize(
    ("architecture", "make"),
    [
        ("llama", tiny_llama),
        ("llama", lambda: tiny_llama(tied=True)),
        ("qwen3", lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=False)).eval()),
    ],
)
def test_the_imported_model_computes_what_the_original_does(tmp_path, architecture, make):
    model = make()
    write_gguf(tmp_path / "m.gguf", model, architecture)
    seen = []
    import_gguf(
        tmp_path / "m.gguf", tmp_path / "m", progress=lambda done, total: seen.append((done, total))
    )
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()
    imported = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    ids = [5, 9, 33, 2, 60]
    assert torch.equal(logits(imported.eval(), ids), logits(model, ids))
    assert seen[-1][0] == seen[-1][1] > 0


def test_the_folder_has_a_file_a_block_and_an_ordinary_index(tmp_path):
    write_gguf(tmp_path / "m.gguf", tiny_llama(), "llama")
    import_gguf(tmp_path / "m.gguf", tmp_path / "m", progress=lambda *_: None)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    for name, file in index["weight_map"].items():
        block = name.split(".")[2] if ".layers." in name else None
        assert file == (
            f"model-block-{int(block):04d}.safetensors" if block else "model-ends.safetensors"
        )
        with safe_open(tmp_path / "m" / file, "pt") as shard:
            assert shard.get_tensor(name).dtype is torch.bfloat16
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "bfloat16"
    assert config["rms_norm_eps"] == 1e-5
    generation = json.loads((tmp_path / "m" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == 0


def test_the_tokenizer_comes_along_with_its_template_and_its_digits(tmp_path):
    write_gguf(tmp_path / "m.gguf", tiny_llama(), "llama")
    import_gguf(tmp_path / "m.gguf", tmp_path / "m", progress=lambda *_: None)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert tokenizer.tokenize("he  12") == ["he", "Ġ", "Ġ", "1", "2"]
    assert tokenizer.decode(tokenizer("he he!").input_ids) == "he he!"
    turns = [{"role": "user", "content": "he"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == "<|start|>he"
    assert tokenizer.eos_token == "<|end|>"


def test_the_long_context_rule_of_llama_3_is_found_again(tmp_path):
    model = tiny_llama()
    rule = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rule |= {"original_max_position_embeddings": 8192, "rope_type": "llama3"}
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    theta = float(model.config.rope_parameters["rope_theta"])
    scaled = LlamaConfig(**SIZES, rope_parameters={**rule, "rope_theta": theta})
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](scaled, "cpu")
    plain = theta ** (-torch.arange(0, 16, 2) / 16)
    factors = (plain / frequencies).numpy().astype(np.float32)
    write_gguf(tmp_path / "m.gguf", model, "llama", extra=[("rope_freqs.weight", factors)])
    import_gguf(tmp_path / "m.gguf", tmp_path / "m", progress=lambda *_: None)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    found = config["rope_parameters"]
    assert found["rope_type"] == "llama3"
    assert found["factor"] == pytest.approx(8.0)


def test_another_scaling_of_positions_is_refused(tmp_path):
    factors = np.linspace(1, 3, 8, dtype=np.float32)
    write_gguf(tmp_path / "m.gguf", tiny_llama(), "llama", extra=[("rope_freqs.weight", factors)])
    with pytest.raises(ModelUnsupported, match="rotary"):
        import_gguf(tmp_path / "m.gguf", tmp_path / "m", progress=lambda *_: None)


def test_a_tensor_too_few_or_too_many_is_refused(tmp_path):
    write_gguf(tmp_path / "a.gguf", tiny_llama(), "llama", skip=["blk.1.ffn_up.weight"])
    with pytest.raises(ModelUnsupported, match="lacks"):
        import_gguf(tmp_path / "a.gguf", tmp_path / "a", progress=lambda *_: None)
    extra = [("blk.0.ffn_gate_exps.weight", np.zeros((2, 4, 4), dtype=np.float32))]
    write_gguf(tmp_path / "b.gguf", tiny_llama(), "llama", extra=extra)
    with pytest.raises(ModelUnsupported, match="does not have"):
        import_gguf(tmp_path / "b.gguf", tmp_path / "b", progress=lambda *_: None)


@pytest.mark.parametrize("cut", [0, 3, 20, 200, -1000])
def test_a_file_that_is_cut_short_is_damaged(tmp_path, cut):
    write_gguf(tmp_path / "m.gguf", tiny_llama(), "llama")
    content = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(content[:cut])
    with pytest.raises(ModelDamaged):
        import_gguf(tmp_path / "m.gguf", tmp_path / "m", progress=lambda *_: None)


def test_another_kind_of_file_is_damaged(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"PK\3\4" + bytes(1000))
    with pytest.raises(ModelDamaged):
        import_gguf(tmp_path / "m.gguf", tmp_path / "m", progress=lambda *_: None)


def test_a_family_that_transformers_does_not_read_from_gguf_is_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "rwkv6")
    writer.add_name("tiny")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelUnsupported, match="rwkv6"):
        import_gguf(tmp_path / "m.gguf", tmp_path / "m", progress=lambda *_: None)


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    write_gguf(tmp_path / "m.gguf", tiny_llama(), "llama")
    monkeypatch.setattr(gguf_import, "save_file", full)
    with pytest.raises(DiskFull, match="no space left"):
        import_gguf(tmp_path / "m.gguf", tmp_path / "m", progress=lambda *_: None)


def test_a_header_that_counts_other_blocks_is_damaged_at_once(tmp_path):
    """One wrong byte in it would have a model of four thousand million blocks built."""
    write_gguf(tmp_path / "m.gguf", tiny_llama(), "llama")
    content = bytearray((tmp_path / "m.gguf").read_bytes())
    at = content.index(b"llama.block_count") + len(b"llama.block_count") + 4
    assert content[at : at + 4] == (3).to_bytes(4, "little")
    content[at + 3] = 0xFF
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ModelDamaged, match="holds 3"):
        import_gguf(tmp_path / "m.gguf", tmp_path / "m", progress=lambda *_: None)


def test_an_array_longer_than_the_file_is_damage_at_once(tmp_path):
    write_gguf(tmp_path / "m.gguf", tiny_llama(), "llama")
    content = bytearray((tmp_path / "m.gguf").read_bytes())
    at = content.index(b"tokenizer.ggml.token_type") + len(b"tokenizer.ggml.token_type") + 8
    assert content[at : at + 8] == len(TOKENS).to_bytes(8, "little")
    content[at + 6] = 0x7F
    content += bytes((at - len(content)) % 4)  # its reader ends where a value is cut in the middle
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ModelDamaged):
        import_gguf(tmp_path / "m.gguf", tmp_path / "m", progress=lambda *_: None)


def test_it_can_be_cancelled_before_the_first_tensor(tmp_path):
    class Cancelled(Exception):
        pass

    def progress(done, total):
        raise Cancelled

    write_gguf(tmp_path / "m.gguf", tiny_llama(), "llama")
    with pytest.raises(Cancelled):
        import_gguf(tmp_path / "m.gguf", tmp_path / "m", progress=progress)
    assert not (tmp_path / "m").exists()


@pytest.mark.timeout(120)
def test_a_damaged_header_is_never_more_than_an_error_of_ours(tmp_path):
    write_gguf(tmp_path / "m.gguf", tiny_llama(), "llama")
    content = (tmp_path / "m.gguf").read_bytes()
    header = gguf.GGUFReader(tmp_path / "m.gguf").data_offset
    dice = random.Random(3)
    outcomes = Counter()
    for _ in range(150):
        damaged = bytearray(content)
        at = dice.randrange(header)
        damaged[at] = dice.choice([0, 1, 0x7F, 0xFF, damaged[at] ^ (1 << dice.randrange(8))])
        (tmp_path / "m.gguf").write_bytes(damaged)
        try:
            import_gguf(tmp_path / "m.gguf", tmp_path / "m", progress=lambda *_: None)
        except (ModelDamaged, ModelUnsupported) as error:
            outcomes[type(error)] += 1
    assert outcomes[ModelDamaged] > 40
    assert outcomes[ModelUnsupported] > 5
