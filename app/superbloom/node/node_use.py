"""Who needs the node beside the command that borrowed it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from superbloom.control.messages import (
    BORROWER,
    CreateInvite,
    FetchModel,
    ImportModel,
    JoinSwarm,
    Request,
    StartShare,
)
from superbloom.control.server import Caller
from superbloom.domain.errors import NodeInUse, SuperbloomError
from superbloom.node.daemon_thread import in_daemon_thread

LASTING = (StartShare, JoinSwarm, CreateInvite, FetchModel, ImportModel)
"""What is asked for outlasts the view that asked."""


class NodeUse:
    """Hears every request. `views` gives the names of the connected views."""

    def __init__(self, views: Callable[[], frozenset[str]]) -> None:
        self._views = views
        self._lasting: list[str] = []
        self._borrower = ""

    @contextlib.contextmanager
    def noted(self, request: Request, caller: Caller) -> Iterator[None]:
        """Note what `caller` asks for during the block, and forget it if it is refused."""
        if caller.client == BORROWER:
            self._borrower = caller.name
        lasting = isinstance(request, LASTING)
        if lasting:
            self._lasting.append(caller.name)
        try:
            yield
        except SuperbloomError:
            if lasting:
                self._lasting.remove(caller.name)
            raise

    def without_borrower(self) -> bool:
        """True while another view than the borrower is connected, or something of its lasts."""
        return self._by_others(self._borrower)

    def require_none_but(self, caller: Caller) -> None:
        """Raises NodeInUse."""
        if self._by_others(caller.name):
            raise NodeInUse("The node is needed by others.")

    def _by_others(self, name: str) -> bool:
        return any(other != name for other in (*self._views(), *self._lasting))


async def stdin_closed() -> None:
    """Return once the other end of stdin is gone, as when the program that held it was killed."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass

    await in_daemon_thread(wait, name="stdin")
