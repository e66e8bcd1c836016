"""How work on a model ended is told by its last event alone, whatever else is heard before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scripted_node import _HANDLERS, INFO, MODEL, ScriptedNode

from superbloom.control.messages import ImportModel, ModelProgress, ModelsChanged, ModelState


class FullDisk(ScriptedNode):
    """Tells a list in which the model is not here, and only then that the work failed."""

    async def _bring(self) -> None:
        absent = replace(INFO, state=ModelState.ABSENT)
        self._tell(ModelsChanged(models=(absent,), model=MODEL))
        self._tell(
            ModelProgress(
                model=MODEL, done_bytes=0, total_bytes=0, words="", finished=True,
                error="186 MB are needed.", next_step="Free some space.",
            )
        )  # fmt: skip


@pytest.fixture
def full_disk(node: ScriptedNode) -> ScriptedNode:
    node.__class__ = FullDisk
    return node


@pytest.mark.usefixtures("full_disk")
def test_a_fetch_fails_even_if_a_list_comes_first(run) -> None:
    ran = run("model", "fetch", "tiny")
    assert ran.code == 1
    assert ran.err.endswith("superbloom: 186 MB are needed.\n  Free some space.\n")


@pytest.mark.usefixtures("full_disk")
def test_an_import_fails_even_if_a_list_comes_first(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(node: ScriptedNode, _request: ImportModel) -> object:
        node._later(node._bring())
        return replace(INFO, state=ModelState.FETCHING)

    monkeypatch.setitem(_HANDLERS, ImportModel, begin)
    ran = run("model", "import", "m.gguf")
    assert ran.code == 1
    assert ran.err.endswith("superbloom: 186 MB are needed.\n  Free some space.\n")
