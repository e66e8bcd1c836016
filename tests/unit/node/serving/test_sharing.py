"""The owner's wish to share, carried out by a supervisor whose server never comes to run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from superbloom.domain.model_card import Precision
from superbloom.domain.settings import Settings, ShareSettings
from superbloom.domain.sharing import ShareRequest, ShareState, ShareStatus
from superbloom.domain.span import Span
from superbloom.node.kept_settings import KeptSettings
from superbloom.node.serving.sharing import SharingService
from superbloom.node.serving.supervisor import Supervisor


async def _never(_request: ShareRequest, _tell: Callable[[str], None]) -> Path:
    await asyncio.Event().wait()
    raise AssertionError


def _sharing(
    path: Path,
    share: ShareSettings,
    told: list[ShareStatus],
    model: Callable[[], str] = lambda: "tiny",
) -> tuple[SharingService, KeptSettings]:
    settings = KeptSettings(path / "settings.json")
    settings.change(lambda _: Settings(model="tiny", share=share))
    supervisor = Supervisor((sys.executable, "-c", ""), told.append)
    return SharingService(supervisor, settings, folder_of=_never, model=model), settings


LIMITED = ShareRequest(
    model="tiny",
    span=Span(1, 3),
    memory_bytes=12_345,
    precision=Precision.INT8,
    device="cpu",
    threads=2,
)


async def test_sharing_again_keeps_the_owners_limits(tmp_path: Path) -> None:
    told: list[ShareStatus] = []
    sharing, settings = _sharing(tmp_path, ShareSettings(wanted=False), told)
    assert (await sharing.start(LIMITED)).wish == LIMITED
    stopped = await sharing.stop(drain=False)
    assert not stopped.wanted
    assert stopped.wish == LIMITED
    kept = settings.value.share
    again = await sharing.start(None)
    assert settings.value.share == replace(kept, wanted=True)
    assert (again.state, again.wanted, again.span) == (ShareState.STARTING, True, LIMITED.span)
    assert again.wish == LIMITED
    await sharing.close()


async def test_chosen_blocks_are_forgotten_with_their_model(tmp_path: Path) -> None:
    model = "tiny"
    sharing, settings = _sharing(tmp_path, ShareSettings(wanted=False), [], lambda: model)
    await sharing.start(LIMITED)
    model = "other"
    await sharing.model_changed()
    assert sharing.status.wish == replace(LIMITED, model="other", span=None)
    assert settings.value.share.wanted
    await sharing.stop(drain=False)
    await sharing.start(LIMITED)  # tiny is now a model that was chosen to be shared
    await sharing.model_changed()
    assert sharing.status.wish == LIMITED
    await sharing.close()


async def test_sharing_otherwise_never_says_that_it_is_off(tmp_path: Path) -> None:
    told: list[ShareStatus] = []
    sharing, _settings = _sharing(tmp_path, ShareSettings(wanted=True), told)
    await sharing.begin()
    status = await sharing.start(ShareRequest(model="tiny", span=Span(0, 2)))
    assert status.state is ShareState.STARTING
    assert {one.state for one in told} == {ShareState.STARTING}
    await sharing.stop(drain=False)
    assert told[-1].state is ShareState.OFF
    await sharing.close()
