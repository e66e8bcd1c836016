from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from superbloom.domain.errors import (
    ProtocolViolation,
    ServerCrashed,
    ServerError,
    SessionRefused,
)
from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span
from superbloom.inference import executor as executor_module
from superbloom.inference import tick as tick_module
from superbloom.inference.cache_room import MOST_TOKENS
from superbloom.inference.executor import Executor
from superbloom.inference.executor_figures import RECENT_SECONDS
from superbloom.inference.kv_cache import PAGE_TOKENS
from superbloom.inference.stage import Stage, StageStep

PATIENCE = 30.0
WHOLE, PART = Span(0, 4), Span(1, 3)
PAGE_BYTES = PAGE_TOKENS * 2 * 2 * 16 * 4


@pytest.fixture(scope="module")
def stage(llama_folder: Path) -> Stage:
    return Stage.load(llama_folder, WHOLE, precision=Precision.FP32, device=torch.device("cpu"))


@pytest.fixture
def executor(stage: Stage) -> Iterator[Executor]:
    """Room for 10 pages of one block."""
    running = Executor(stage, cache_bytes=10 * PAGE_BYTES)
    yield running
    running.shutdown(PATIENCE)


def numbers(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(seed))


def alone(stage: Stage, blocks: Span, hidden: Tensor) -> Tensor:
    return stage.forward([StageStep(stage.new_cache(blocks), 0, hidden)])[0]


class Gate:
    """Holds the executor in its next forward until it is opened, and can make forwards fail."""

    def __init__(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.batches: list[list[int]] = []
        self.error: BaseException | None = None
        self._forward = stage.forward
        monkeypatch.setattr(stage, "forward", self._pass)

    def _pass(self, steps: Sequence[StageStep]) -> list[Tensor]:
        self.batches.append([step.hidden.shape[0] for step in steps])
        self.entered.set()
        assert self.open.wait(PATIENCE)
        bad = [step for step in steps if bool(step.hidden[0, 0] == 666)]
        if bad and self.error is not None:
            raise self.error
        return self._forward(steps)


def test_steps_of_a_session_run_in_order(stage: Stage, executor: Executor) -> None:
    hidden = numbers(12)
    executor.open(b"a", WHOLE, 100)
    futures = [executor.submit(b"a", n, hidden[n : n + 1]) for n in range(12)]
    found = torch.cat([future.result(PATIENCE) for future in futures])
    torch.testing.assert_close(found, alone(stage, WHOLE, hidden), atol=1e-5, rtol=1e-5)


def test_sessions_that_wait_share_one_forward(
    stage: Stage, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(stage, monkeypatch)
    for name in (b"a", b"b", b"c", b"d"):
        executor.open(name, PART if name == b"d" else Span(0, 2), 50)
    futures = [executor.submit(b"a", 0, numbers(1))]
    assert gate.entered.wait(PATIENCE)
    futures += [executor.submit(name, 0, numbers(2)) for name in (b"b", b"c", b"d")]
    gate.open.set()
    assert not wait(futures, PATIENCE).not_done
    assert gate.batches == [[1], [2, 2], [2]]


def test_it_knows_how_long_the_steps_of_others_wait(
    stage: Stage, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(stage, monkeypatch)
    for name in (b"a", b"b"):
        executor.open(name, PART, 50)
    futures = [executor.submit(b"a", n, numbers(1)) for n in range(3)]
    assert gate.entered.wait(PATIENCE)
    assert executor.stats().waiting_seconds < 0.05
    futures.append(executor.submit(b"b", 0, numbers(1)))
    time.sleep(0.2)
    gate.open.set()
    assert not wait(futures, PATIENCE).not_done
    # The first step of each; those of one session that wait for each other do not count.
    assert 0.1 < executor.stats().waiting_seconds < 10
    assert len(executor._figures._waits) == 2
    assert executor._figures.waiting_seconds(time.monotonic() + RECENT_SECONDS + 1) == 0


def test_a_long_prompt_does_not_hold_up_those_who_decode(
    stage: Stage, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tick_module, "CHUNK_TOKENS", 64)
    gate = Gate(stage, monkeypatch)
    order: list[str] = []
    executor.open(b"long", PART, 400)
    executor.open(b"other", PART, 400)
    executor.open(b"short", PART, 10)
    first = executor.submit(b"short", 0, numbers(1))
    assert gate.entered.wait(PATIENCE)
    prompts = [executor.submit(name, 0, numbers(300)) for name in (b"long", b"other")]
    decode = [executor.submit(b"short", n, numbers(1)) for n in range(1, 5)]
    for name, future in zip(["prompt"] * 2 + ["token"] * 4, prompts + decode, strict=True):
        future.add_done_callback(lambda _, name=name: order.append(name))
    gate.open.set()
    assert not wait([first, *prompts, *decode], PATIENCE).not_done
    assert order == ["token"] * 4 + ["prompt"] * 2
    assert all(sum(count > 8 for count in batch) <= 1 for batch in gate.batches)
    assert max(map(max, gate.batches)) <= 64
    expected = alone(stage, PART, numbers(300))
    for prompt in prompts:
        torch.testing.assert_close(prompt.result(), expected, atol=1e-5, rtol=1e-5)


def test_a_session_that_cannot_fit_is_refused_with_numbers(executor: Executor) -> None:
    executor.open(b"a", PART, 4 * PAGE_TOKENS)
    assert executor.stats().free_cache_tokens == 0
    with pytest.raises(SessionRefused, match=r"room for 256 more tokens of cache.* asks for 300"):
        executor.open(b"b", PART, 300)
    executor.open(b"b", PART, 256)
    executor.close(b"a")
    executor.open(b"c", PART, 4 * PAGE_TOKENS)


@pytest.mark.parametrize(("blocks", "tokens"), [(Span(2, 5), 10), (WHOLE, 0)])
def test_a_session_that_makes_no_sense_is_refused(
    executor: Executor, blocks: Span, tokens: int
) -> None:
    with pytest.raises(SessionRefused):
        executor.open(b"a", blocks, tokens)
    assert executor.stats().sessions == 0


def test_a_session_is_opened_once(executor: Executor) -> None:
    executor.open(b"a", WHOLE, 10)
    with pytest.raises(SessionRefused, match="open already"):
        executor.open(b"a", WHOLE, 10)


@pytest.mark.parametrize(
    ("position", "hidden"),
    [
        (0, torch.zeros(64)),
        (0, torch.zeros(1, 63)),
        (0, torch.zeros(0, 64)),
        (0, torch.zeros(1, 1, 64)),
        (0, torch.zeros(1, 64, dtype=torch.int64)),
        (-1, torch.zeros(1, 64)),
        (0, torch.zeros(11, 64)),
        (10, torch.zeros(1, 64)),
    ],
)
def test_a_wrong_step_is_refused_at_once(executor: Executor, position: int, hidden: Tensor) -> None:
    executor.open(b"a", WHOLE, 10)
    with pytest.raises(ProtocolViolation):
        executor.submit(b"a", position, hidden)
    with pytest.raises(ProtocolViolation, match="not open"):
        executor.submit(b"b", 0, torch.zeros(1, 64))


def test_a_position_beyond_the_past_fails_that_step_only(
    stage: Stage, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(stage, monkeypatch)
    executor.open(b"bad", WHOLE, 10)
    executor.open(b"good", WHOLE, 10)
    first = executor.submit(b"good", 0, numbers(1))
    assert gate.entered.wait(PATIENCE)
    wrong = executor.submit(b"bad", 5, numbers(1))
    right = executor.submit(b"good", 1, numbers(1))
    gate.open.set()
    assert first.result(PATIENCE).shape == right.result(PATIENCE).shape == (1, 64)
    with pytest.raises(ProtocolViolation, match="position 5"):
        wrong.result(PATIENCE)
    assert executor.submit(b"bad", 0, numbers(1)).result(PATIENCE).shape == (1, 64)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("boom"), ServerError),
        (torch.OutOfMemoryError("CUDA out of memory"), SessionRefused),
        (RuntimeError("can't allocate memory: 9 bytes"), SessionRefused),
        (MemoryError(), SessionRefused),
    ],
)
def test_a_failure_fails_only_its_own_session(
    stage: Stage,
    executor: Executor,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
) -> None:
    gate = Gate(stage, monkeypatch)
    gate.error = error
    for name in (b"bad", b"good", b"first"):
        executor.open(name, Span(0, 1), 10)
    futures: dict[bytes, Future[Tensor]] = {b"first": executor.submit(b"first", 0, numbers(1))}
    assert gate.entered.wait(PATIENCE)
    futures[b"bad"] = executor.submit(b"bad", 0, torch.full((1, 64), 666.0))
    futures[b"good"] = executor.submit(b"good", 0, numbers(1, 3))
    gate.open.set()
    words = "could not compute" if kind is ServerError else "ran out of memory"
    with pytest.raises(kind, match=words):
        futures[b"bad"].result(PATIENCE)
    expected = alone(stage, Span(0, 1), numbers(1, 3))
    torch.testing.assert_close(futures[b"good"].result(PATIENCE), expected)
    assert executor.submit(b"bad", 0, numbers(1)).result(PATIENCE).shape == (1, 64)


def test_dropped_steps_are_cancelled_and_the_session_goes_on(
    stage: Stage, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(stage, monkeypatch)
    executor.open(b"a", WHOLE, 100)
    running = executor.submit(b"a", 0, numbers(1))
    assert gate.entered.wait(PATIENCE)
    queued = executor.submit(b"a", 1, numbers(1))
    executor.drop_queued(b"a")
    executor.drop_queued(b"unknown")
    assert queued.cancelled()
    gate.open.set()
    with pytest.raises(CancelledError):
        running.result(PATIENCE)
    assert executor.submit(b"a", 1, numbers(1)).result(PATIENCE).shape == (1, 64)
    assert gate.batches == [[1], [1]]


def test_what_is_left_of_a_dropped_prompt_is_not_computed(
    stage: Stage, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tick_module, "CHUNK_TOKENS", 64)
    gate = Gate(stage, monkeypatch)
    executor.open(b"a", PART, 500)
    executor.open(b"b", PART, 10)
    prompt = executor.submit(b"a", 0, numbers(500))
    assert gate.entered.wait(PATIENCE)
    executor.drop_queued(b"a")
    gate.open.set()
    with pytest.raises(CancelledError):
        prompt.result(PATIENCE)
    executor.submit(b"b", 0, numbers(1)).result(PATIENCE)
    assert gate.batches == [[64], [1]]


def test_threads_are_looked_at_again_within_a_prompt(
    stage: Stage, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []
    assert executor._threads is not None
    monkeypatch.setattr(executor._threads, "_use", lambda *, prompt: looks.append(prompt))
    executor.open(b"a", PART, 100)
    executor.submit(b"a", 0, numbers(20)).result(PATIENCE)
    executor.submit(b"a", 20, numbers(1)).result(PATIENCE)
    assert looks == [True] * (1 + len(PART)) + [False]


def test_closing_in_mid_step_frees_the_session(
    stage: Stage, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(stage, monkeypatch)
    before = executor.stats().free_cache_tokens
    executor.open(b"a", WHOLE, 100)
    futures = [executor.submit(b"a", n, numbers(1)) for n in range(3)]
    assert gate.entered.wait(PATIENCE)
    executor.close(b"a")
    executor.close(b"a")
    gate.open.set()
    assert not wait(futures, PATIENCE).not_done
    for future in futures:
        with pytest.raises(CancelledError):
            future.result()
    assert executor.stats().free_cache_tokens == before
    executor.open(b"a", WHOLE, 100)
    assert executor.submit(b"a", 0, numbers(1)).result(PATIENCE).shape == (1, 64)


def test_figures_are_there_from_the_start(executor: Executor) -> None:
    stats = executor.stats()
    assert stats.step_seconds > 0
    assert stats.prefill_tokens_per_second > 0
    assert (stats.sessions, stats.tokens_computed) == (0, 0)
    assert stats.free_cache_tokens == 2 * PAGE_TOKENS
    executor.open(b"a", PART, 300)
    executor.submit(b"a", 0, numbers(300)).result(PATIENCE)
    assert executor.stats().tokens_computed == 300


def test_shutdown_settles_everything(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Executor(stage, cache_bytes=PAGE_BYTES * 8)
    gate = Gate(stage, monkeypatch)
    executor.open(b"a", WHOLE, 100)
    futures = [executor.submit(b"a", n, numbers(1)) for n in range(3)]
    assert gate.entered.wait(PATIENCE)
    executor.shutdown(0.01)
    gate.open.set()
    executor.shutdown(PATIENCE)
    assert not wait(futures, PATIENCE).not_done
    with pytest.raises(ProtocolViolation):
        executor.submit(b"a", 0, numbers(1))
    with pytest.raises(SessionRefused, match="shutting down"):
        executor.open(b"b", WHOLE, 10)


def test_a_stage_that_cannot_compute_fails_at_the_start(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Sequence[StageStep]) -> list[Tensor]:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(stage, "forward", broken)
    with pytest.raises(RuntimeError, match="no such kernel"):
        Executor(stage, cache_bytes=PAGE_BYTES)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("device-side assert triggered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx"),
        KeyboardInterrupt(),
    ],
)
def test_a_lost_device_ends_everything_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    executor = Executor(stage, cache_bytes=PAGE_BYTES * 64)
    assert executor.failure is None
    gate = Gate(stage, monkeypatch)
    gate.error = error
    for name in (b"bad", b"good", b"first"):
        executor.open(name, WHOLE, 10)
    futures = [executor.submit(b"first", 0, numbers(1))]
    assert gate.entered.wait(PATIENCE)
    futures += [executor.submit(b"bad", 0, torch.full((1, 64), 666.0))]
    futures += [executor.submit(b"good", n, numbers(1)) for n in range(3)]
    gate.open.set()
    assert futures[0].result(PATIENCE).shape == (1, 64)
    for future in futures[1:]:
        with pytest.raises(ServerError, match="computes nothing more"):
            future.result(PATIENCE)
    executor._thread.join(PATIENCE)
    assert isinstance(executor.failure, ServerCrashed)
    with pytest.raises(ServerError, match="computes nothing more"):
        executor.submit(b"good", 0, numbers(1))
    with pytest.raises(SessionRefused, match="computes nothing more"):
        executor.open(b"new", WHOLE, 10)
    executor.close(b"good")
    executor.stats()
    executor.shutdown(PATIENCE)


def test_who_waits_is_told_even_if_freeing_memory_fails(
    stage: Stage, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def lost() -> None:
        raise torch.AcceleratorError("an illegal memory access was encountered")

    executor.open(b"a", WHOLE, 10)
    broken = SimpleNamespace(
        device=SimpleNamespace(type="cuda"), hidden_size=64, span=WHOLE, forward=fail
    )
    monkeypatch.setattr(executor, "_stage", broken)
    shim = SimpleNamespace(cuda=SimpleNamespace(empty_cache=lost))
    monkeypatch.setattr(executor_module, "torch", shim)
    with pytest.raises(SessionRefused, match="out of memory"):
        executor.submit(b"a", 0, numbers(1)).result(PATIENCE)
    executor._thread.join(PATIENCE)
    assert executor.failure is not None


def test_results_that_cannot_be_joined_fail_their_step_only(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Tensor:
        raise RuntimeError("can't allocate memory: 9 bytes")

    monkeypatch.setattr(tick_module, "CHUNK_TOKENS", 64)
    executor.open(b"a", PART, 200)
    executor.open(b"b", PART, 200)
    with monkeypatch.context() as patch:
        patch.setattr(executor_module, "torch", SimpleNamespace(cat=fail))
        with pytest.raises(SessionRefused, match="out of memory"):
            executor.submit(b"a", 0, numbers(100)).result(PATIENCE)
    assert executor.submit(b"b", 0, numbers(100)).result(PATIENCE).shape == (100, 64)
    assert executor.failure is None


def test_what_a_session_would_lack_is_said_in_bytes(executor: Executor) -> None:
    executor.open(b"a", PART, 4 * PAGE_TOKENS)
    assert executor.reserved_bytes(b"a") == 8 * PAGE_BYTES
    assert executor.reserved_bytes(b"b") == 0
    assert executor.missing_bytes(PART, PAGE_TOKENS) == 0
    assert executor.missing_bytes(PART, PAGE_TOKENS + 1) == 2 * PAGE_BYTES
    assert executor.missing_bytes(Span(3, 9), 10**6) == 0


SessionPlan = tuple[Span, list[int]]
plans = st.lists(
    st.tuples(st.sampled_from([WHOLE, PART]), st.lists(st.integers(1, 40), min_size=1, max_size=5)),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(plans=plans, order=st.randoms(use_true_random=False))
def test_any_interleaving_gives_each_session_what_it_gets_alone(
    stage: Stage, plans: list[SessionPlan], order: object
) -> None:
    executor = Executor(stage, cache_bytes=PAGE_BYTES * 64)
    turns = [who for who, (_, chunks) in enumerate(plans) for _ in chunks]
    order.shuffle(turns)  # type: ignore[attr-defined]
    inputs = [numbers(sum(chunks), seed) for seed, (_, chunks) in enumerate(plans)]
    positions, places = [0] * len(plans), [0] * len(plans)
    futures: list[list[Future[Tensor]]] = [[] for _ in plans]
    try:
        for who, (blocks, chunks) in enumerate(plans):
            executor.open(bytes([who]), blocks, sum(chunks))
        for who in turns:
            count = plans[who][1][places[who]]
            chunk = inputs[who][positions[who] : positions[who] + count]
            futures[who].append(executor.submit(bytes([who]), positions[who], chunk))
            positions[who] += count
            places[who] += 1
        for who, (blocks, _) in enumerate(plans):
            found = torch.cat([future.result(PATIENCE) for future in futures[who]])
            expected = alone(stage, blocks, inputs[who])
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    finally:
        executor.shutdown(PATIENCE)


def test_a_session_does_not_go_on_where_its_windows_have_forgotten(
    tiny_model: Callable[[str], PreTrainedModel],
) -> None:
    folder = Path(tiny_model("mixtral").name_or_path)
    stage = Stage.load(folder, WHOLE, precision=Precision.FP32, device=torch.device("cpu"))
    running = Executor(stage, cache_bytes=stage.cache_bytes(WHOLE, 10**6))
    try:
        running.open(b"a", WHOLE, 10**5)
        running.submit(b"a", 0, numbers(2000)).result(PATIENCE)
        running.extend(b"a", 10**6, position=1990)
        running.extend(b"a", 10**6, position=0)
        with pytest.raises(SessionRefused, match="remembers too little"):
            running.extend(b"a", 10**6, position=5)
        assert running.stats().free_cache_tokens == 0
        running.close(b"a")
        assert running.stats().free_cache_tokens == MOST_TOKENS
    finally:
        running.shutdown(PATIENCE)
