"""Where the steps are: told by what the servers of a chain report."""

from __future__ import annotations

from superbloom.pipeline.messages import Progress
from superbloom.pipeline.ring_profile import RingProfile


def at(received: int, sent: int, epoch: int = 1) -> Progress:
    return Progress(epoch=epoch, received=received, sent=sent)


def shares(*looks: list[Progress]) -> tuple[float, ...]:
    profile = RingProfile(len(looks[0]))
    for look in looks:
        profile.add(look)
    return profile.shares()


FIRST = [at(8, 7), at(7, 7), at(7, 7)]
SECOND = [at(8, 8), at(8, 7), at(7, 7)]
LAST = [at(8, 8), at(8, 8), at(8, 7)]
NOWHERE = [at(8, 8), at(8, 8), at(8, 8)]


def test_the_time_is_shared_as_the_steps_were_found() -> None:
    assert shares(FIRST, SECOND, SECOND, LAST) == (0.25, 0.5, 0.25)


def test_what_is_said_to_be_sent_and_did_not_arrive_is_the_senders() -> None:
    assert shares(*[[at(8, 8), at(7, 7), at(7, 7)]] * 4) == (1, 0, 0)


def test_a_new_epoch_that_has_not_gone_on_is_the_first_ones() -> None:
    assert shares(*[[at(6, 6, epoch=2), at(9, 9), at(9, 9)]] * 4) == (1, 0, 0)


def test_several_steps_may_be_under_way() -> None:
    assert shares(*[[at(9, 8), at(8, 7), at(7, 7)]] * 4) == (0.5, 0.5, 0)


def test_a_step_that_nobody_has_is_between_the_last_and_the_first() -> None:
    assert shares(NOWHERE, NOWHERE, NOWHERE, FIRST) == (0.25, 0, 0.75)


def test_without_looks_nobody_has_anything() -> None:
    assert RingProfile(2).shares() == (0, 0)
