"""Queued steps weigh what they weigh, for a session and for all sessions of a client."""

from __future__ import annotations

import asyncio

import pytest

from superbloom.pipeline.step_room import PeerRoom, StepRoom


async def waits(room: StepRoom, nbytes: int) -> asyncio.Task[None]:
    task = asyncio.create_task(room.enter(nbytes))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_a_session_waits_for_its_own_steps() -> None:
    room = StepRoom(PeerRoom(), steps=2, limit_bytes=100)
    await room.enter(60)
    heavy = await waits(room, 50)
    room.leave(60)
    await heavy
    await room.enter(1)
    third = await waits(room, 1)
    room.leave(50)
    await third
    assert room.held_bytes == 2


async def test_sessions_of_a_client_wait_for_each_other() -> None:
    peer = PeerRoom(limit_bytes=100)
    first, second = StepRoom(peer), StepRoom(peer)
    await first.enter(80)
    waiting = await waits(second, 30)
    first.close()
    await waiting
    assert second.held_bytes == 30


async def test_one_step_always_passes_and_a_closed_session_never_waits() -> None:
    room = StepRoom(PeerRoom(limit_bytes=10), limit_bytes=10)
    await room.enter(1000)
    waiting = await waits(room, 1)
    room.close()
    async with asyncio.timeout(1):
        await waiting
        await room.enter(1000)


async def test_a_cancelled_wait_holds_nothing() -> None:
    room = StepRoom(PeerRoom(), limit_bytes=10)
    await room.enter(10)
    waiting = await waits(room, 5)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert room.held_bytes == 10


async def test_a_step_that_leaves_wakes_its_own_session_only() -> None:
    peer = PeerRoom()
    rooms = [StepRoom(peer, steps=1) for _ in range(3)]
    for room in rooms:
        await room.enter(10)
    waiting = [await waits(room, 10) for room in rooms]
    rooms[1].leave(10)
    await waiting[1]
    assert [task.done() for task in waiting] == [False, True, False]
    for room in rooms:
        room.close()
    await asyncio.gather(*waiting)
    assert peer.fits(10**9)


async def test_a_closed_session_takes_nothing_of_the_others_room() -> None:
    peer = PeerRoom(limit_bytes=100)
    first, second = StepRoom(peer), StepRoom(peer)
    await first.enter(80)
    first.close()
    first.close()
    first.leave(80)  # its last step goes
    await first.enter(70)
    await second.enter(100)
    await waits(second, 1)
    second.close()
