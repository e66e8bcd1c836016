"""Settings refuse what makes no sense."""

from __future__ import annotations

import pytest

from superbloom.domain.errors import InputRejected
from superbloom.domain.settings import Reach, Settings, ShareSettings, SwarmSettings
from superbloom.domain.span import Span


@pytest.mark.parametrize(
    "values",
    [
        {"first_block": 1},
        {"end_block": 1},
        {"first_block": 2, "end_block": 2},
        {"first_block": -1, "end_block": 2},
        {"memory_bytes": 0},
        {"threads": 0},
    ],
)
def test_a_share_that_makes_no_sense(values: dict[str, int]) -> None:
    with pytest.raises(InputRejected):
        ShareSettings(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("port", "reach", "expected"),
    [
        (4001, Reach.OPEN, 4002),
        (4001, Reach.LOCAL, 0),
        (0, Reach.OPEN, 0),
        (65535, Reach.OPEN, 0),
    ],
)
def test_the_server_listens_one_above_the_node(port: int, reach: Reach, expected: int) -> None:
    assert SwarmSettings(port=port, reach=reach).server_port == expected


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none(port: int) -> None:
    with pytest.raises(InputRejected):
        SwarmSettings(port=port)


def test_chosen_blocks_as_a_span() -> None:
    assert ShareSettings(first_block=2, end_block=5).span == Span(2, 5)
    assert ShareSettings().span is None


def test_a_fresh_computer_shares_on_its_own_swarm() -> None:
    assert Settings().share.wanted
    assert Settings().swarm.reach == "local"
