"""What the node's command line says, and what of it is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

from superbloom.domain.catalogue import STARTER
from superbloom.domain.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """`model`, `port` and `exact` are kept, if they are given; `share` False holds this time.

    A `borrowed` node ends when its stdin does, unless others need it.
    """

    model: str = ""
    port: int | None = None
    exact: bool | None = None
    share: bool = True
    borrowed: bool = False


def with_options(settings: Settings, options: NodeOptions) -> Settings:
    """The settings with what is to be kept."""
    changed = replace(settings, model=options.model or settings.model or STARTER)
    if options.exact is not None:
        changed = replace(changed, exact=options.exact)
    if options.port is None:
        return changed
    return replace(changed, swarm=replace(changed.swarm, port=options.port))
