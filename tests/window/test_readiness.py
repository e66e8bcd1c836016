"""What is missing before a question can be answered, and who can read it."""

from __future__ import annotations

from dataclasses import replace

from fake_node import MB, MODEL, model, server

from superbloom.control.messages import ModelProgress, ModelState, Reach, SwarmStatus
from superbloom.domain.sharing import ShareState, ShareStatus
from superbloom.domain.span import Span
from superbloom.window.chat.readiness import privacy_words, readiness

SHARE = ShareStatus(state=ShareState.SERVING, wanted=True, model=MODEL)
SWARM = SwarmStatus(
    name="meadow", reach=Reach.LOCAL, peer="me", servers=(server("one", Span(0, 30)),)
)
EMPTY = replace(SWARM, servers=())


def test_before_the_node_answers() -> None:
    now = readiness(None, None, None, None)
    assert not now.ready
    assert now.working


def test_ready_when_every_block_is_held() -> None:
    assert readiness(model(), None, SHARE, SWARM).ready


def test_a_download_says_how_far_it_is() -> None:
    step = ModelProgress(model=MODEL, done_bytes=43 * MB, total_bytes=86 * MB, words="Fetching")
    now = readiness(model(state=ModelState.FETCHING), step, SHARE, EMPTY)
    assert now.words == "Fetching"
    assert now.detail == "43 MB of 86 MB"
    assert now.part == 0.5
    unknown = readiness(model(), replace(step, total_bytes=0), SHARE, EMPTY)
    assert unknown.part is None


def test_a_loading_share_is_work_that_ends_by_itself() -> None:
    now = readiness(model(), None, replace(SHARE, state=ShareState.LOADING), EMPTY)
    assert now.working
    assert now.words == "Loading the model"


def test_blocks_that_nobody_holds_are_counted() -> None:
    some = replace(SWARM, servers=(server("one", Span(0, 29)),))
    now = readiness(model(), None, replace(SHARE, state=ShareState.OFF), some)
    assert "1 block of SmolLM2 135M" in now.words
    assert not now.working


def test_an_absent_model_says_where_to_fetch_it() -> None:
    now = readiness(model(state=ModelState.ABSENT), None, SHARE, EMPTY)
    assert "Models page" in now.detail


def test_who_can_read() -> None:
    assert "nobody else" in privacy_words(SWARM)
    assert "can read the text" in privacy_words(replace(SWARM, reach=Reach.OPEN))
    assert privacy_words(None) == ""
