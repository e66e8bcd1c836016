"""The owner's wish to share, carried out by a supervisor whose server never comes to run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from superbloom.domain.settings import Settings, ShareSettings
from superbloom.domain.sharing import ShareRequest, ShareState, ShareStatus
from superbloom.domain.span import Span
from superbloom.node.kept_settings import KeptSettings
from superbloom.node.sharing import SharingService
from superbloom.node.supervisor import Supervisor


async def _never(_request: ShareRequest, _tell: Callable[[str], None]) -> Path:
    await asyncio.Event().wait()
    raise AssertionError


async def test_sharing_otherwise_never_says_that_it_is_off(tmp_path: Path) -> None:
    told: list[ShareStatus] = []
    settings = KeptSettings(tmp_path / "settings.json")
    settings.change(lambda _: Settings(model="tiny", share=ShareSettings(wanted=True)))
    sharing = SharingService(
        Supervisor((sys.executable, "-c", ""), told.append),
        settings,
        folder_of=_never,
        model=lambda: "tiny",
    )
    await sharing.begin()
    status = await sharing.start(ShareRequest(model="tiny", span=Span(0, 2)))
    assert status.state is ShareState.STARTING
    assert {one.state for one in told} == {ShareState.STARTING}
    await sharing.stop(drain=False)
    assert told[-1].state is ShareState.OFF
    await sharing.close()
