"""What of the node's command line is kept."""

from __future__ import annotations

import pytest

from superbloom.domain.catalogue import STARTER
from superbloom.domain.settings import Settings, SwarmSettings
from superbloom.node.options import NodeOptions, with_options

CHOSEN = Settings(model="other", exact=True, swarm=SwarmSettings(port=4001))


def test_a_fresh_computer_uses_the_starter() -> None:
    assert with_options(Settings(), NodeOptions()) == Settings(model=STARTER)


def test_what_is_not_said_stays() -> None:
    assert with_options(CHOSEN, NodeOptions(share=False)) == CHOSEN


@pytest.mark.parametrize("exact", [True, False])
def test_what_is_said_is_kept(exact: bool) -> None:
    kept = with_options(CHOSEN, NodeOptions(model="third", port=5000, exact=exact))
    assert (kept.model, kept.swarm.port, kept.exact) == ("third", 5000, exact)
