"""Who holds a chain up, told from what its servers report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from superbloom.domain.errors import PeerLost
from superbloom.pipeline.messages import Progress
from superbloom.pipeline.stall import (
    STALL_SECONDS,
    STALL_SECONDS_PER_TOKEN,
    StallWatch,
    first_misled,
)

LATE = STALL_SECONDS + 10
BEGUN = Progress(epoch=1, received=0, sent=0)


@pytest.fixture
def links() -> list[Any]:
    return list("abc")  # the watch only tells them apart


def reports(*pairs: tuple[int, int]) -> list[Progress]:
    return [Progress(epoch=1, received=received, sent=sent) for received, sent in pairs]


def test_a_first_look_blames_nobody(links: list[Any]) -> None:
    watch = StallWatch()
    assert watch.stalled(links, reports((8, 8), (8, 0), (0, 0)), 8, 100.0, BEGUN) is None


def test_the_one_with_work_and_no_progress_is_found(links: list[Any]) -> None:
    watch = StallWatch()
    standing = reports((9, 9), (9, 8), (8, 8))
    assert watch.stalled(links, standing, 9, 100.0, BEGUN) is None
    assert watch.stalled(links, standing, 9, 100.0 + LATE, BEGUN) is links[1]


def test_progress_begins_the_patience_anew(links: list[Any]) -> None:
    watch = StallWatch()
    before = reports((900, 900), (500, 256), (256, 256))
    assert watch.stalled(links, before, 900, 100.0, BEGUN) is None
    moved = reports((900, 900), (700, 512), (512, 512))
    assert watch.stalled(links, moved, 900, 100.0 + LATE, BEGUN) is None
    assert watch.stalled(links, moved, 900, 100.0 + 2 * LATE, BEGUN) is None


def test_a_long_step_may_take_longer_than_a_short_one(links: list[Any]) -> None:
    watch = StallWatch()
    standing = reports((200, 0), (0, 0), (0, 0))
    assert watch.stalled(links, standing, 200, 100.0, BEGUN) is None
    soon = 100.0 + STALL_SECONDS + 200 * STALL_SECONDS_PER_TOKEN - 1
    assert watch.stalled(links, standing, 200, soon, BEGUN) is None
    assert watch.stalled(links, standing, 200, soon + 2, BEGUN) is links[0]


def test_steps_that_vanish_between_two_servers_are_laid_to_the_second(links: list[Any]) -> None:
    watch = StallWatch()
    standing = reports((9, 9), (8, 8), (8, 8))
    assert watch.stalled(links, standing, 9, 100.0, BEGUN) is None
    assert watch.stalled(links, standing, 9, 100.0 + LATE, BEGUN) is links[1]


def test_a_result_that_never_comes_is_laid_to_the_last(links: list[Any]) -> None:
    watch = StallWatch()
    standing = reports((9, 9), (9, 9), (9, 9))
    assert watch.stalled(links, standing, 9, 100.0, BEGUN) is None
    assert watch.stalled(links, standing, 9, 100.0 + LATE, BEGUN) is links[2]


def test_who_does_not_answer_is_lost_at_once(links: list[Any]) -> None:
    loss = PeerLost("It did not answer in time.", peer="b")
    first, _, third = reports((9, 9), (9, 9), (9, 9))
    assert StallWatch().stalled(links, [first, loss, third], 9, 100.0, BEGUN) is links[1]


def test_what_was_done_in_an_older_epoch_is_not_done_in_the_present_one(links: list[Any]) -> None:
    watch, begun = StallWatch(), Progress(epoch=2, received=6, sent=6)
    first, others = Progress(epoch=2, received=8, sent=8), reports((9, 9), (9, 9))
    assert watch.stalled(links, [first, *others], 8, 100.0, begun) is None
    assert watch.stalled(links, [first, *others], 8, 100.0 + LATE, begun) is links[1]


def test_a_server_in_an_epoch_to_come_speaks_against_the_one_before_it(links: list[Any]) -> None:
    links = [SimpleNamespace(peer=name) for name in links]
    said = reports((9, 9), (9, 9), (9, 9))
    assert first_misled(links, said, 1) is None
    said[1] = Progress(epoch=7, received=9, sent=9)
    misled = first_misled(links, said, 1)
    assert misled is not None
    assert (misled[0], misled[1].blame) == (links[1], "a")
    loss = PeerLost("It did not answer in time.", peer="b")
    assert first_misled(links, [said[0], loss, said[2]], 1) is None
