"""Attention for the packed steps of several sessions, as transformers' models call it.

All steps of a call lie one behind the other in one row `[1, tokens, hidden]`. Linear layers, norms
and experts do not mix tokens, so only attention has to know whose token is whose: the function here
is registered with transformers under PACKED, puts each session's keys and values into its own cache
and attends session by session. Masks are not made by transformers at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from superbloom.domain.budget import SCORE_BYTES
from superbloom.inference.kv_cache import SessionCache

PACKED = "superbloom_packed"

BYTES_A_SCORE = 8
"""A score in fp32, and what it is made of or becomes in the stage's dtype."""


@dataclass(slots=True)
class PackedPart:
    """One session's tokens in the row: `start` to `start + tokens`, cached from `position` on."""

    cache: SessionCache
    start: int
    tokens: int
    position: int
    _masks: dict[int | None, Tensor | None] = field(default_factory=dict)

    def mask(self, window: int | None, seen: int, like: Tensor) -> Tensor | None:
        """What is added to the scores of each new token for the last `seen`, `[tokens, seen]`.

        0 where it sees them, else minus infinity, in the dtype and on the device of `like`; None
        for plain causal. Made once for all layers.
        """
        if window not in self._masks:
            self._masks[window] = self._make_mask(window, seen, like)
        return self._masks[window]

    def _make_mask(self, window: int | None, seen: int, like: Tensor) -> Tensor | None:
        if seen == self.tokens and (window is None or window >= seen):
            return None
        device = like.device
        first = self.position + self.tokens - seen
        key = torch.arange(first, first + seen, device=device)
        query = torch.arange(self.position, self.position + self.tokens, device=device)[:, None]
        visible = key <= query
        if window is not None:
            visible &= key > query - window
        return like.new_zeros(visible.shape).masked_fill_(~visible, float("-inf"))


class PackedCache:
    """Stands where transformers expects a cache; the attention function does the caching."""

    is_compileable = False

    def __init__(self, layers: int) -> None:
        self.is_sliding = [False] * layers

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Nothing to add here: `[1, heads, tokens, dim]` both, as they come."""
        return keys, values

    def get_seq_length(self, layer: int = 0) -> int:
        """No past that transformers should know of."""
        return 0

    def get_query_offset(self, layer: int = 0) -> int:
        """No past that transformers should know of."""
        return 0

    def get_mask_sizes(self, tokens: int, layer: int = 0) -> tuple[int, int]:
        """Sizes for masks that are never made."""
        return tokens, 0

    def get_max_cache_shape(self, layer: int = 0) -> int:
        """Unbounded."""
        return -1


running: ContextVar[Sequence[PackedPart]] = ContextVar("superbloom_packed_parts")
"""The parts of the forward that runs in this thread; transformers passes no such argument on."""


def attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    *_: object,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over each session's own past.

    `query` is `[1, heads, tokens, dim]`, `key` and `value` `[1, key heads, tokens, dim]`; the
    result is `[1, tokens, heads, dim]`. `s_aux` are attention sinks, one a head.
    """
    parts = running.get()
    layer: int = module.layer_idx  # type: ignore[assignment]
    plain = softcap is None and s_aux is None
    if plain and all(part.tokens == 1 for part in parts):
        given = (query, key, value)
        return _attend_singles(parts, layer, given, scaling, sliding_window), None
    rows = []
    for part in parts:
        place = slice(part.start, part.start + part.tokens)
        mine, new_keys, new_values = query[:, :, place], key[:, :, place], value[:, :, place]
        if plain and part.tokens == 1:
            given = (mine, new_keys, new_values)
            rows.append(_attend_singles((part,), layer, given, scaling, sliding_window)[0])
            continue
        keys, values = part.cache.write(layer, new_keys[0], new_values[0], sliding_window)
        keys, values = _in_sight(keys, values, part.tokens, sliding_window)
        mask = None if part.tokens == 1 else part.mask(sliding_window, keys.shape[1], keys)
        if plain:
            result = _attend_many(mine[0], keys, values, mask, scaling)
        else:
            result = _attend_by_hand(
                mine[0], keys, values, mask=mask, scaling=scaling, softcap=softcap, sinks=s_aux
            )
        rows.append(result.transpose(0, 1))
    row = rows[0] if len(rows) == 1 else torch.cat(rows)
    return row[None], None


def _in_sight(
    keys: Tensor, values: Tensor, tokens: int, window: int | None
) -> tuple[Tensor, Tensor]:
    """What the last `tokens` see at most."""
    if window is None or keys.shape[1] < window + tokens:
        return keys, values
    first = keys.shape[1] - window - tokens + 1
    return keys[:, first:], values[:, first:]


def _attend_singles(
    parts: Sequence[PackedPart],
    layer: int,
    given: tuple[Tensor, Tensor, Tensor],
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """One token a session. The heads that share a key head stand in its row: nothing is expanded.

    What can be done for all sessions at once is: for short texts calls take longer than computing.
    """
    query, key, value = given
    heads, tokens, dim = query.shape[1:]
    shared = key.shape[1]
    queries = query[0].transpose(0, 1).reshape(tokens, 1, shared, heads // shared, dim).unbind()
    outputs = []
    new = torch.split(key[0], 1, dim=1), torch.split(value[0], 1, dim=1)
    for part, mine, new_key, new_value in zip(parts, queries, *new, strict=True):
        keys, values = part.cache.write(layer, new_key, new_value, window)
        keys, values = _in_sight(keys, values, 1, window)
        outputs.append(
            nn.functional.scaled_dot_product_attention(
                mine, keys[None], values[None], scale=scaling
            )
        )
    row = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return row.reshape(1, tokens, heads, value.shape[3])


def _attend_many(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scaling: float | None
) -> Tensor:
    """A chunk. What has no kernel for shared key heads takes one of the sharing heads a turn."""
    heads, tokens, dim = query.shape
    groups = heads // keys.shape[0]
    own_kernel = query.device.type == "cpu" and dim == values.shape[2]
    turns = 1 if own_kernel else groups
    grouped = query.reshape(-1, turns, tokens, dim)
    results = [
        nn.functional.scaled_dot_product_attention(
            grouped[None, :, turn],
            keys[None],
            values[None],
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=groups > turns,
        )[0]
        for turn in range(turns)
    ]
    result = results[0] if turns == 1 else torch.stack(results, dim=1)
    return result.reshape(heads, tokens, values.shape[2])


def _attend_by_hand(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """What torch's own function cannot do: capped scores and attention sinks.

    All key heads at once, or few and so many tokens at a time that all on the way stays within
    SCORE_BYTES.
    """
    heads, tokens, dim = query.shape
    shared, seen = keys.shape[:2]
    groups = heads // shared
    scaling = dim**-0.5 if scaling is None else scaling
    row_bytes = groups * seen * BYTES_A_SCORE
    together = min(shared, max(1, SCORE_BYTES // (tokens * row_bytes)))
    step = min(tokens, max(1, SCORE_BYTES // (together * row_bytes)))
    result = values.new_empty(heads, tokens, values.shape[2])
    for head in range(0, shared, together):
        theirs = slice(head, min(head + together, shared))
        mine = slice(theirs.start * groups, theirs.stop * groups)
        for start in range(0, tokens, step):
            some = slice(start, min(start + step, tokens))
            result[mine, some] = _attend_some(
                query[mine, some],
                keys[theirs],
                values[theirs],
                hidden=_hidden(mask, some, seen, keys.device) if tokens > 1 else None,
                scaling=scaling,
                softcap=softcap,
                sinks=None if sinks is None else sinks[mine].float(),
            )
    return result


def _attend_some(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    hidden: Tensor | None,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attention of a few tokens over all they see but what is `hidden` `[tokens, seen]`."""
    heads, tokens, dim = query.shape
    shared, seen = keys.shape[:2]
    rows = query.reshape(shared, -1, dim)
    scores = (rows @ keys.transpose(1, 2)).mul_(scaling).float().view(heads, tokens, seen)
    if softcap is not None:
        scores.div_(softcap).tanh_().mul_(softcap)
    if hidden is not None:
        scores.masked_fill_(hidden, float("-inf"))
    weights = _softmax_(scores, sinks).to(values.dtype)
    return (weights.view(shared, -1, seen) @ values).view(heads, tokens, -1)


def _hidden(mask: Tensor | None, some: slice, seen: int, device: torch.device) -> Tensor:
    """What the tokens `some` of a chunk do not see, `[tokens, seen]`."""
    if mask is not None:
        return mask[some] < 0
    query = torch.arange(some.start, some.stop, device=device)
    return torch.arange(seen, device=device) > query[:, None]


def _softmax_(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax over the last side of `[heads, tokens, seen]`, in place.

    `sinks` `[heads]` are scores of one more token that has no value.
    """
    highest = scores.amax(dim=-1, keepdim=True)
    if sinks is None:
        scores.sub_(highest).exp_()
        return scores.div_(scores.sum(dim=-1, keepdim=True))
    extra = sinks[:, None, None]
    highest = torch.maximum(highest, extra)
    scores.sub_(highest).exp_()
    return scores.div_(scores.sum(dim=-1, keepdim=True) + (extra - highest).exp_())


def _no_mask(*_: object, **__: object) -> None:
    return None


AttentionInterface.register(PACKED, attend_packed)
AttentionMaskInterface.register(PACKED, _no_mask)
