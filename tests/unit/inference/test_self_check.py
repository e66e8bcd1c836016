from __future__ import annotations

import pytest
from transformers import CONFIG_MAPPING

from superbloom.domain.errors import ModelUnsupported
from superbloom.inference import self_check
from superbloom.inference.block_runner import BlockRunner
from superbloom.inference.families import ALONE, KNOWN
from superbloom.inference.self_check import check_family


def config(family: str, **values: object) -> dict[str, object]:
    return {**CONFIG_MAPPING[family]().to_dict(), **values}


def test_families_that_the_tests_show_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "_tried", lambda _: pytest.fail("was tried"))
    packed = {family for family in KNOWN if check_family(config(family))}
    assert packed == KNOWN - ALONE


@pytest.mark.parametrize(
    ("family", "packed"),
    [("gemma2", True), ("phi3", True), ("qwen3_moe", True), ("llama4_text", False), ("mpt", False)],
)
def test_an_unknown_family_is_tried_and_served(family: str, packed: bool) -> None:
    assert check_family(config(family)) is packed


@pytest.mark.parametrize("family", ["mamba", "qwen3_next"])
def test_a_family_without_plain_attention_is_refused(family: str) -> None:
    with pytest.raises(ModelUnsupported, match=family):
        check_family(config(family))


def test_a_family_that_computes_otherwise_in_stages_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = BlockRunner.forward
    monkeypatch.setattr(
        BlockRunner, "forward", lambda *args: [output * 1.01 for output in right(*args)]
    )
    with pytest.raises(ModelUnsupported, match="other results in two stages"):
        check_family(config("phi", rope_theta=12345.0))


def test_a_trial_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_family(config("olmo2"))
    monkeypatch.setattr(self_check, "_tiny_model", lambda _: pytest.fail("was tried again"))
    assert check_family(config("olmo2"))
