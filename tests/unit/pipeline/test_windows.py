"""Whatever is added, lost and retracted, every position is sent in order and comes back once."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from superbloom.pipeline.messages import CHUNK_TOKENS, MAX_STEP_TOKENS, Result
from superbloom.pipeline.windows import CREDIT_CHUNKS, PlannedStep, Windows


def answer(step: PlannedStep) -> Result:
    rows = torch.zeros(step.keep, 1)
    return Result(epoch=0, position=step.start, end=step.end, hidden=rows)


def send_all(windows: Windows) -> list[PlannedStep]:
    steps = []
    while (step := windows.next_step()) is not None:
        windows.note_sent(step)
        steps.append(step)
    return steps


def test_a_prompt_goes_in_chunks_and_only_its_last_state_comes_back() -> None:
    windows = Windows()
    windows.add(range(2 * CHUNK_TOKENS + 5), keep=1)
    steps = send_all(windows)
    assert [(step.end - step.start, step.keep) for step in steps] == [
        (CHUNK_TOKENS, 0),
        (CHUNK_TOKENS, 0),
        (5, 1),
    ]
    assert [windows.take(answer(step)) for step in steps] == [False, False, True]


def test_no_more_is_under_way_than_there_is_credit() -> None:
    windows = Windows()
    windows.add(range(10 * CHUNK_TOKENS), keep=1)
    steps = send_all(windows)
    assert len(steps) == CREDIT_CHUNKS
    windows.take(answer(steps[0]))
    assert len(send_all(windows)) == 1


def test_windows_follow_each_other_without_waiting() -> None:
    windows = Windows()
    windows.add([1], keep=1)
    windows.add([2, 3, 4], keep=3)
    assert send_all(windows) == [PlannedStep(0, 0, 1, 1), PlannedStep(0, 1, 4, 3)]


def test_a_result_must_be_that_of_the_oldest_step() -> None:
    windows = Windows()
    assert not windows.expects(answer(PlannedStep(0, 0, 1, 1)))
    windows.add([1, 2], keep=2)
    windows.add([3], keep=1)
    send_all(windows)
    assert windows.expects(answer(PlannedStep(0, 0, 2, 2)))
    for other in (PlannedStep(0, 0, 2, 1), PlannedStep(0, 0, 1, 1), PlannedStep(0, 2, 3, 1)):
        assert not windows.expects(answer(other))


def test_what_is_retracted_is_forgotten_and_what_is_through_before_it_stays() -> None:
    windows = Windows()
    windows.add([1, 2, 3], keep=3)
    windows.add([4, 5], keep=2)
    first, _ = send_all(windows)
    windows.take(answer(first))
    windows.retract(2)
    assert (windows.epoch, windows.beginning.sent) == (1, 2)
    assert (windows.tokens, windows.committed, windows.next_step()) == ([1, 2], 2, None)
    windows.add([9], keep=1)
    assert send_all(windows) == [PlannedStep(1, 2, 3, 1)]


def test_nothing_is_retracted_where_nothing_was_sent_beyond() -> None:
    windows = Windows()
    windows.add([1, 2], keep=1)
    for step in send_all(windows):
        windows.take(answer(step))
    windows.retract(2)
    windows.add([3], keep=1)
    windows.retract(9)
    assert (windows.tokens, windows.epoch) == ([1, 2], 0)


@given(
    st.lists(st.tuples(st.integers(1, 600), st.integers(1, 8)), min_size=1, max_size=6),
    st.integers(0, 12),
    st.booleans(),
)
def test_after_a_loss_all_that_was_under_way_comes_back_in_the_same_windows(
    sizes: list[tuple[int, int]], results_before: int, all_is_gone: bool
) -> None:
    windows, kept = Windows(), []
    for size, keep in sizes:
        kept.append(min(size, keep))
        windows.add(range(size), keep=kept[-1])
    waiting, completed = send_all(windows), []
    for number in range(results_before + 10_000):
        if number == results_before:
            windows.add([0], keep=1)  # it is only while something is wanted that losses are seen
            kept.append(1)
            windows.begin_epoch(0 if all_is_gone else windows.committed)
            waiting = send_all(windows)
        if not waiting:
            break
        step = waiting.pop(0)
        assert 0 < step.end - step.start <= MAX_STEP_TOKENS
        assert step.start == windows.committed
        assert windows.expects(answer(step))
        if windows.take(answer(step)):
            completed.append(step.keep)
        waiting += send_all(windows)
    assert completed == kept
    assert windows.committed == windows.sent == len(windows.tokens)
