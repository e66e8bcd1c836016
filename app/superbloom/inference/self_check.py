"""Tries a family before it is served: a tiny random model, whole against two stages.

Families that the tests show need no trial. For any other a model of the same configuration but
small sizes is saved, loaded as two stages, and run in chunks and single tokens beside a second
session; its blocks' output must be the whole model's.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from superbloom.domain.errors import ModelError, ModelUnsupported
from superbloom.domain.span import Span
from superbloom.inference.block_model import BlockModel, build_empty, fill
from superbloom.inference.block_runner import BlockRunner, StageStep
from superbloom.inference.families import ALONE, KNOWN, block_count, text_config, tiny_config

logger = logging.getLogger(__name__)

TOKENS = 20
CHUNKS = ((0, 9), (9, 16), (16, 17), (17, 18), (18, TOKENS))
TOLERANCE = 1e-4
"""Largest difference, as a part of the largest value."""
LARGEST_TRIAL = 200_000_000
"""Parameters of the largest model that is tried."""

CPU = torch.device("cpu")


def check_family(config: Mapping[str, object]) -> bool:
    """Whether steps of several sessions may be packed for models of this configuration.

    Raises ModelUnsupported when the family cannot be served at all. Results are remembered.
    """
    family = text_config(config).model_type
    if family in KNOWN:
        return family not in ALONE
    return _tried(json.dumps(config, sort_keys=True, default=str))


@lru_cache(maxsize=64)
def _tried(config: str) -> bool:
    whole_config = text_config(json.loads(config))
    family = whole_config.model_type
    try:
        whole = _tiny_model(whole_config)
        differences = {packed: _difference(whole, packed) for packed in (True, False)}
    except ModelError:
        raise
    except Exception as error:  # a foreign family's code raises what it likes
        raise ModelUnsupported(
            f"Models of the kind {family!r} cannot be split into stages: {error}."
        ) from error
    logger.info("Trial of the family %s: differences %s", family, differences)
    for packed, difference in differences.items():
        if difference <= TOLERANCE:
            return packed
    raise ModelUnsupported(
        f"Models of the kind {family!r} give other results in two stages than whole "
        f"(difference {min(differences.values()):.1e}), so they are not served."
    )


@dataclass(frozen=True, slots=True)
class _Whole:
    """A whole model, and what enters its first block and leaves its last: `[tokens, hidden]`."""

    config: PretrainedConfig
    model: PreTrainedModel
    entering: Tensor
    leaving: Tensor


def _tiny_model(config: PretrainedConfig) -> _Whole:
    """A small random model of the family; a larger one where small sizes do not fit together."""
    problem: Exception | None = None
    for narrow in (True, False):
        try:
            tiny = tiny_config(config, narrow=narrow)
            with torch.device("meta"):
                size = sum(p.numel() for p in _built(tiny).parameters())
            if size > LARGEST_TRIAL:
                break
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = _built(tiny)
                _shake(model.train(False))
            entering, leaving = _blocks_of_whole(model)
        except Exception as error:  # noqa: BLE001  (sizes that do not fit together raise anything)
            problem = error
        else:
            return _Whole(tiny, model, entering, leaving)
    raise ModelUnsupported(
        f"No small model of the kind {config.model_type!r} can be made to try it."
    ) from problem


def _built(config: PretrainedConfig) -> PreTrainedModel:
    model: PreTrainedModel = AutoModel.from_config(  # type: ignore[no-untyped-call]
        config, dtype=torch.float32
    )
    return model


def _shake(model: nn.Module) -> None:
    """Fresh norms and biases are ones and zeros, behind which a mistake could hide."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)


def _difference(whole: _Whole, packed: bool) -> float:
    """The largest difference of two stages from the whole, as a part of the largest value."""
    try:
        count = block_count(whole.config)
        cut = max(1, count // 2)
        spans = [Span(0, cut), *([Span(cut, count)] if cut < count else [])]
        with tempfile.TemporaryDirectory(prefix="superbloom-trial-") as name:
            whole.model.save_pretrained(name)
            stages = [_stage(whole.config, Path(name), span, packed) for span in spans]
        found = _blocks_of_stages(stages, whole.entering)
    except Exception as error:  # noqa: BLE001  (a way that raises is a way that fails)
        logger.info("Trial of %s (packed: %s): %s", whole.config.model_type, packed, error)
        return float("inf")
    if not bool(torch.isfinite(found).all()):
        return float("inf")
    return float((found - whole.leaving).abs().max() / whole.leaving.abs().max())


def _stage(config: PretrainedConfig, folder: Path, span: Span, packed: bool) -> BlockRunner:
    built = build_empty(config, span, torch.float32)
    built.set_packed(packed)
    fill(built, folder, span, dtype=torch.float32, device=CPU, after_block=lambda *_: None)
    return BlockRunner(built, span, torch.float32, CPU)


def _blocks_of_whole(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """What enters the first block and leaves the last, `[tokens, hidden]` both."""
    layers = BlockModel(model).layers
    seen: dict[str, Tensor] = {}

    def enters(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen["in"] = args[0] if args else kwargs["hidden_states"]

    def leaves(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> None:
        seen["out"] = output if isinstance(output, Tensor) else output[0]

    hooks = (
        layers[0].register_forward_pre_hook(enters, with_kwargs=True),
        layers[-1].register_forward_hook(leaves),
    )
    try:
        with torch.inference_mode():
            ids = torch.arange(3, 3 + 3 * TOKENS, 3)[None]
            model(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return seen["in"][0], seen["out"][0]


def _blocks_of_stages(stages: list[BlockRunner], entering: Tensor) -> Tensor:
    """The same through stages, in chunks and single tokens, beside a session of other tokens."""
    caches = [(stage.new_cache(stage.span), stage.new_cache(stage.span)) for stage in stages]
    outputs = []
    for first, end in CHUNKS:
        mine, other = entering[first:end], entering.flip(0)[first : first + 1]
        for stage, (cache, beside) in zip(stages, caches, strict=True):
            steps = [
                StageStep(beside, beside.tokens, other),
                StageStep(cache, first, mine),
            ]
            other, mine = stage.forward(steps)
        outputs.append(mine)
    return torch.cat(outputs)
