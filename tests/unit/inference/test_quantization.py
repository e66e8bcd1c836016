from __future__ import annotations

import json
import shutil
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from superbloom.domain.errors import ModelUnsupported
from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span
from superbloom.inference import quantization
from superbloom.inference.cpu.int8 import Int8Linear
from superbloom.inference.stage import Stage, StageStep

CPU = torch.device("cpu")
QUANTIZED = [Precision.INT8, Precision.NF4]


def load(folder: Path, precision: Precision) -> Stage:
    return Stage.load(folder, Span(1, 3), precision=precision, device=CPU)


def output(stage: Stage, hidden: Tensor) -> Tensor:
    cache = stage.new_cache(stage.span)
    chunks = [stage.forward([StageStep(cache, a, hidden[a:b])])[0] for a, b in ((0, 6), (6, 7))]
    return torch.cat(chunks).float()


@pytest.mark.parametrize(
    ("precision", "bytes_of_16", "tolerance"),
    [(Precision.INT8, 8, 0.05), (Precision.NF4, 4.5, 0.35)],
)
@pytest.mark.parametrize("family", ["llama", "bloom", "gemma3", "falcon", "falcon-new"])
def test_quantized_blocks_are_small_and_close(
    tiny_model: Callable[[str], PreTrainedModel],
    family: str,
    precision: Precision,
    bytes_of_16: float,
    tolerance: float,
) -> None:
    folder = Path(tiny_model(family).name_or_path)
    plain, quantized = load(folder, Precision.BF16), load(folder, precision)
    assert quantized.weight_bytes < plain.weight_bytes * (bytes_of_16 / 16 + 0.12)
    hidden = torch.randn(7, 64)
    found, expected = output(quantized, hidden), output(plain, hidden)
    assert float((found - expected).norm() / expected.norm()) < tolerance
    assert quantized.dtype is torch.bfloat16


@pytest.mark.parametrize("precision", QUANTIZED)
def test_fused_experts_are_refused(
    tiny_model: Callable[[str], PreTrainedModel], precision: Precision
) -> None:
    folder = Path(tiny_model("mixtral").name_or_path)
    with pytest.raises(ModelUnsupported, match="MixtralExperts"):
        load(folder, precision)


class OddLinear(nn.Linear):
    """Its forward may do anything."""


@pytest.mark.parametrize("odd", [OddLinear(4, 4), Conv1D(4, 4), nn.Bilinear(2, 2, 2)])
def test_any_weight_but_a_plain_linear_layers_is_refused(odd: nn.Module) -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Embedding(3, 4))
    quantization.check_held_in(Precision.NF4, [block])
    block.append(odd)
    quantization.check_held_in(Precision.FP16, [block])
    assert not quantization.is_held_in(Precision.NF4, block)
    with pytest.raises(ModelUnsupported, match=type(odd).__name__):
        quantization.check_held_in(Precision.NF4, [block])


def test_a_refused_precision_is_refused_before_anything_is_read(
    tiny_model: Callable[[str], PreTrainedModel], tmp_path: Path
) -> None:
    shutil.copy(Path(tiny_model("mixtral").name_or_path) / "config.json", tmp_path)
    with pytest.raises(ModelUnsupported, match="MixtralExperts"):
        load(tmp_path, Precision.NF4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(192, 576), (1536, 576), (7, 96), (5, 7)])
def test_nf4_made_in_chunks_is_that_of_bitsandbytes(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(quantization, "_CPU_CHUNK", 10 * quantization.NF4_GROUP)
    weight = torch.randn(shape).to(torch.bfloat16)
    expected = bnb.nn.Params4bit(weight.clone(), requires_grad=False, quant_type="nf4").to("cpu")
    found: Any = quantization._nf4_on_cpu(bnb, weight)
    assert torch.equal(found.data, expected.data)
    mine, theirs = found.quant_state.as_dict(), expected.quant_state.as_dict()
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        same = torch.equal(mine[key], value) if isinstance(value, Tensor) else mine[key] == value
        assert same, key
    assert vars(found).keys() == vars(expected).keys()
    plain = {key: value for key, value in vars(expected).items() if key != "quant_state"}
    assert {key: vars(found)[key] for key in plain} == plain


@pytest.mark.parametrize("precision", QUANTIZED)
def test_plain_weights_are_freed_one_by_one(precision: Precision) -> None:
    block = nn.Sequential(*(nn.Linear(64, 64, dtype=torch.bfloat16) for _ in range(4)))
    plain = [weakref.ref(linear) for linear in block]
    left = []
    name = "Int8Linear" if precision is Precision.INT8 else "_quantized"
    quantized: Callable[..., nn.Module] = getattr(quantization, name)

    def watched(*args: Any, **options: Any) -> nn.Module:
        left.append(sum(one() is not None for one in plain))
        return quantized(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantization, name, watched)
        quantization.quantize_block(block, precision, torch.bfloat16, CPU)
    assert left == [4, 3, 2, 1]


def test_what_is_not_quantized_is_moved_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.BatchNorm1d(4))
    monkeypatch.setattr(quantization, "_quantized", lambda *_: nn.Identity())
    quantization.quantize_block(block, Precision.NF4, torch.bfloat16, torch.device("meta"))
    left = [*block.parameters(), *block.buffers()]
    assert len(left) == 7
    assert all(tensor.is_meta for tensor in left)


def test_what_will_be_quantized_is_read_on_the_cpu() -> None:
    gpu = torch.device("cuda", 0)
    assert quantization.filling_device(Precision.NF4, gpu) == CPU
    assert quantization.filling_device(Precision.INT8, gpu) == CPU
    assert quantization.filling_device(Precision.BF16, gpu) == gpu


@pytest.mark.parametrize("precision", QUANTIZED)
def test_other_devices_are_refused(precision: Precision) -> None:
    with pytest.raises(ModelUnsupported, match="cannot be held on mps"):
        quantization.compute_dtype(precision, torch.device("mps"))


def test_without_bitsandbytes_the_refusal_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ImportError

    monkeypatch.setattr(quantization.importlib, "import_module", missing)
    with pytest.raises(ModelUnsupported, match="library bitsandbytes"):
        quantization.compute_dtype(Precision.NF4, CPU)


def test_files_quantized_already_are_refused(llama_folder: Path, tmp_path: Path) -> None:
    config = json.loads((llama_folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelUnsupported, match=r"quantized already \(gptq\)"):
        load(tmp_path, Precision.BF16)


def test_experts_stored_in_mxfp4_are_unpacked(
    tiny_model: Callable[[str], PreTrainedModel], tmp_path: Path
) -> None:
    tensors = {}
    for name, tensor in tiny_model("gpt-oss").state_dict().items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts, width, rows = tensor.shape
            packed = (experts, rows, width // 32)
            tensors[f"{name}_blocks"] = torch.randint(0, 256, (*packed, 16), dtype=torch.uint8)
            tensors[f"{name}_scales"] = torch.randint(118, 124, packed, dtype=torch.uint8)
        else:
            tensors[name] = tensor.contiguous()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = tiny_model("gpt-oss").config.to_dict()
    config["quantization_config"] = {"quant_method": "mxfp4"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    whole = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    stage = load(tmp_path, Precision.BF16)
    expected = whole.state_dict()
    found = dict(stage._built.model.named_parameters())
    for block in (0, 1):
        for leaf in ("gate_up_proj", "down_proj"):
            weight = found[f"layers.{block}.mlp.experts.{leaf}"]
            assert torch.equal(weight, expected[f"model.layers.{block + 1}.mlp.experts.{leaf}"])
    assert output(stage, torch.randn(7, 64)).isfinite().all()


def test_int8_on_a_cpu_needs_no_bitsandbytes(
    monkeypatch: pytest.MonkeyPatch, llama_folder: Path
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    stage = load(llama_folder, Precision.INT8)
    linear = [module for module in stage._built.model.modules() if type(module) is Int8Linear]
    assert len(linear) == 2 * 4  # those that read the same input are one
    assert output(stage, torch.randn(7, 64)).isfinite().all()
