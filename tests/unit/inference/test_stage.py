from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from superbloom.domain.errors import ModelDamaged, ModelUnsupported, ProtocolViolation
from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span
from superbloom.inference.ends import ClientEnds
from superbloom.inference.kv_cache import REWIND_TOKENS, SLIDE_TOKENS, pages_for
from superbloom.inference.stage import Stage, StageStep
from superbloom.inference.weights import INDEX_FILE, shards_of_blocks

CPU = torch.device("cpu")
TinyModel = Callable[[str], PreTrainedModel]
CHUNKS = ((0, 10), (10, 17), (17, 18), (18, 19), (19, 21))


def load(folder: Path, start: int, end: int, precision: Precision = Precision.FP32) -> Stage:
    return Stage.load(folder, Span(start, end), precision=precision, device=CPU)


def load_all(folder: Path, cuts: Sequence[int]) -> list[Stage]:
    return [load(folder, start, end) for start, end in pairwise(cuts)]


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randint(3, 120, (count,), generator=torch.Generator().manual_seed(seed))


def test_every_block_of_a_forward_is_announced(tiny_model: TinyModel, family: str) -> None:
    stage = load(Path(tiny_model(family).name_or_path), 0, 3)
    begun: list[int] = []
    stage.before_block = lambda: begun.append(1)
    for blocks in (Span(0, 3), Span(1, 2)):
        begun.clear()
        stage.forward([StageStep(stage.new_cache(blocks), 0, torch.zeros(9, stage.hidden_size))])
        assert len(begun) == len(blocks)


@pytest.mark.parametrize("published", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stages", [2, 3])
def test_stages_give_the_whole_models_logits(
    tiny_model: TinyModel, family: str, stages: int, published: torch.dtype, tmp_path: Path
) -> None:
    whole = tiny_model(family)
    folder = Path(whole.name_or_path)
    if published != torch.float32:  # such weights are held in another form
        whole, folder = copy.deepcopy(whole), tmp_path
        for weight in whole.parameters():
            weight.data = weight.data.to(published).to(torch.float32)
        whole.save_pretrained(folder)
    blocks = whole.config.num_hidden_layers
    cuts = [0, 2, blocks] if stages == 2 else [0, 1, 3, blocks]
    chain = load_all(folder, cuts)
    ends = ClientEnds.load(folder, precision=Precision.FP32, device=CPU)
    ids = tokens(21)
    with torch.inference_mode():
        expected = whole(ids[None], use_cache=False).logits[0]
    caches = [stage.new_cache(stage.span) for stage in chain]
    found = []
    for first, end in CHUNKS:
        hidden = ends.embed(ids[first:end].tolist(), first)
        for stage, cache in zip(chain, caches, strict=True):
            (hidden,) = stage.forward([StageStep(cache, first, hidden)])
        found.append(ends.logits(hidden))
    assert difference(torch.cat(found), expected) < 1e-4


def test_a_checkpoint_of_the_base_model_loads_as_well(
    tiny_model: TinyModel, family: str, tmp_path: Path
) -> None:
    whole = tiny_model(family)
    whole.base_model.save_pretrained(tmp_path)
    hidden = torch.randn(5, 64)
    results = []
    for folder in (Path(whole.name_or_path), tmp_path):
        stage = load(folder, 1, 3)
        results += stage.forward([StageStep(stage.new_cache(stage.span), 0, hidden)])
    assert torch.equal(*results)


def test_a_session_in_a_batch_computes_what_it_computes_alone(
    tiny_model: TinyModel, family: str
) -> None:
    stage = load(Path(tiny_model(family).name_or_path), 0, 3)
    inputs = [torch.randn(21, 64, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    shifted = (CHUNKS, ((0, 1), (1, 12), (12, 14), (14, 20), (20, 21)), CHUNKS)
    alone = []
    for hidden, chunks in zip(inputs, shifted, strict=True):
        cache = stage.new_cache(stage.span)
        outputs = [stage.forward([StageStep(cache, a, hidden[a:b])])[0] for a, b in chunks]
        alone.append(torch.cat(outputs))
    caches = [stage.new_cache(stage.span) for _ in inputs]
    together: list[list[Tensor]] = [[], [], []]
    for turn in range(len(CHUNKS)):
        steps = [
            StageStep(cache, chunks[turn][0], hidden[slice(*chunks[turn])])
            for cache, chunks, hidden in zip(caches, shifted, inputs, strict=True)
        ]
        for outputs, output in zip(together, stage.forward(steps), strict=True):
            outputs.append(output)
    for found, expected in zip(together, alone, strict=True):
        assert difference(torch.cat(found), expected) < 1e-5


def test_a_session_may_use_a_part_of_the_span(tiny_model: TinyModel, family: str) -> None:
    folder = Path(tiny_model(family).name_or_path)
    wide, narrow = load(folder, 0, 4), load(folder, 1, 3)
    hidden = torch.randn(12, 64)
    caches = wide.new_cache(Span(1, 3)), narrow.new_cache(Span(1, 3))
    for first, end in ((0, 10), (10, 11), (11, 12)):
        (found,) = wide.forward([StageStep(caches[0], first, hidden[first:end])])
        (expected,) = narrow.forward([StageStep(caches[1], first, hidden[first:end])])
        assert difference(found, expected) < 1e-6
    assert caches[0].blocks == Span(1, 3)
    with pytest.raises(ValueError, match="of a stage that holds"):
        narrow.new_cache(Span(0, 2))


def test_a_step_at_an_earlier_position_overwrites_what_followed(
    tiny_model: TinyModel, family: str
) -> None:
    stage = load(Path(tiny_model(family).name_or_path), 0, 2)
    hidden, draft = torch.randn(14, 64), torch.randn(4, 64)
    straight, rewound = stage.new_cache(stage.span), stage.new_cache(stage.span)
    stage.forward([StageStep(straight, 0, hidden[:10])])
    stage.forward([StageStep(rewound, 0, hidden[:10])])
    stage.forward([StageStep(rewound, 10, draft)])
    (expected,) = stage.forward([StageStep(straight, 10, hidden[10:])])
    (found,) = stage.forward([StageStep(rewound, 10, hidden[10:])])
    assert torch.equal(found, expected)
    assert rewound.tokens == 14


def test_a_position_beyond_the_past_is_refused(llama_folder: Path) -> None:
    stage = load(llama_folder, 0, 1)
    cache = stage.new_cache(stage.span)
    with pytest.raises(ProtocolViolation, match="position 1, but the session holds 0"):
        stage.forward([StageStep(cache, 1, torch.zeros(1, 64))])


def test_sizes_are_what_tensors_say(llama_folder: Path) -> None:
    stage = load(llama_folder, 1, 3, Precision.BF16)
    one_block = 2 * (64 * 64 + 64 * 32) + 3 * 64 * 96 + 2 * 64
    assert stage.weight_bytes == pytest.approx(2 * 2 * one_block, rel=0.01)
    assert stage.cache_bytes_per_token == 2 * 2 * 16 * 2
    assert (stage.hidden_size, stage.dtype, stage.packed) == (64, torch.bfloat16, True)


def test_progress_counts_blocks(llama_folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    Stage.load(
        llama_folder,
        Span(1, 4),
        precision=Precision.FP32,
        device=CPU,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_blocks_beyond_the_model_are_refused(llama_folder: Path) -> None:
    with pytest.raises(ModelUnsupported, match="4 blocks"):
        load(llama_folder, 3, 5)


def test_only_the_spans_shards_are_opened(llama_folder: Path, tmp_path: Path) -> None:
    index = json.loads((llama_folder / INDEX_FILE).read_text())["weight_map"]
    needed = shards_of_blocks(index, Span(1, 2))
    assert len(needed) < len(set(index.values()))
    for name in ("config.json", INDEX_FILE, *needed):
        (tmp_path / name).write_bytes((llama_folder / name).read_bytes())
    assert load(tmp_path, 1, 2).span == Span(1, 2)
    with pytest.raises(ModelDamaged, match="is missing"):
        load(tmp_path, 0, 4)


def test_a_cut_shard_is_damage(llama_folder: Path, tmp_path: Path) -> None:
    for file in llama_folder.iterdir():
        content = file.read_bytes()
        cut = file.suffix == ".safetensors"
        (tmp_path / file.name).write_bytes(content[:-100] if cut else content)
    with pytest.raises(ModelDamaged, match="cut short"):
        load(tmp_path, 0, 4)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_text_part_of_a_model_with_eyes_is_loaded(
    tiny_model: TinyModel, tmp_path: Path, prefix: str
) -> None:
    text = tiny_model("gemma3")
    eyes = "vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight"
    tensors = {
        name.replace("model.", prefix, 1): tensor.clone()
        for name, tensor in text.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file({**tensors, eyes: torch.zeros(3, 3)}, tmp_path / "model.safetensors")
    config = {"model_type": "gemma3", "text_config": text.config.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    hidden = torch.randn(5, 64)
    results = []
    for folder in (Path(text.name_or_path), tmp_path):
        stage = load(folder, 1, 3)
        results += stage.forward([StageStep(stage.new_cache(stage.span), 0, hidden)])
    assert torch.equal(*results)


@pytest.mark.parametrize("name", ["gemma3", "gpt-oss", "mixtral"])
def test_windows_stay_exact_and_bounded_in_a_long_text(tiny_model: TinyModel, name: str) -> None:
    folder = Path(tiny_model(name).name_or_path)
    stage = load(folder, 0, 4)
    long = 5 * SLIDE_TOKENS + 21
    hidden = torch.randn(long, 64)
    (expected,) = stage.forward([StageStep(stage.new_cache(stage.span), 0, hidden)])
    cache, outputs = stage.new_cache(stage.span), []
    for first in range(0, 5 * SLIDE_TOKENS, SLIDE_TOKENS):
        outputs += stage.forward([StageStep(cache, first, hidden[first : first + SLIDE_TOKENS])])
    for first in range(5 * SLIDE_TOKENS, long):
        outputs += stage.forward([StageStep(cache, first, hidden[first : first + 1])])
    assert difference(torch.cat(outputs), expected) < 1e-5
    assert cache.nbytes == stage.cache_bytes(stage.span, long)
    assert cache.nbytes < pages_for(long) * 4 * stage.cache_bytes_per_token
    back = long - REWIND_TOKENS
    (again,) = stage.forward([StageStep(cache, back, hidden[back:])])
    assert difference(again, expected[back:]) < 1e-5
