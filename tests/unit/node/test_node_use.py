"""Who needs the node beside its borrower."""

from __future__ import annotations

import pytest

from superbloom.control.messages import BORROWER, GetStatus, JoinSwarm, StartShare
from superbloom.control.server import Caller
from superbloom.domain.errors import InviteInvalid, NodeInUse
from superbloom.domain.sharing import ShareRequest
from superbloom.node.node_use import NodeUse

ONE = Caller("view-1", BORROWER)
TWO = Caller("view-2", "terminal")
SHARE = StartShare(request=ShareRequest(model="tiny"))


def test_other_views_and_what_lasts_keep_it() -> None:
    views = {"view-1", "view-2"}
    use = NodeUse(lambda: frozenset(views))
    with use.noted(GetStatus(), ONE):
        pass
    with pytest.raises(NodeInUse):
        use.require_none_but(ONE)
    with use.noted(GetStatus(), TWO):
        pass
    views.remove("view-2")
    use.require_none_but(ONE)
    with use.noted(SHARE, TWO):
        pass
    with pytest.raises(NodeInUse) as caught:
        use.require_none_but(ONE)
    assert "superbloom stop" in caught.value.next_step
    assert use.without_borrower()


def test_what_the_borrower_itself_began_keeps_nothing() -> None:
    views = {"view-1"}
    use = NodeUse(lambda: frozenset(views))
    with use.noted(SHARE, ONE):
        pass
    use.require_none_but(ONE)
    views.clear()
    assert not use.without_borrower()


def test_what_was_refused_keeps_nothing() -> None:
    use = NodeUse(frozenset)
    with pytest.raises(InviteInvalid), use.noted(JoinSwarm(code="x"), TWO):
        raise InviteInvalid("No.")
    use.require_none_but(ONE)
    assert not use.without_borrower()
