"""Tooltips for text that is not ours."""

from __future__ import annotations

import html


def plain_tip(text: str) -> str:
    """A tooltip that shows `text` as it is; empty text stays no tooltip.

    Qt guesses whether a tooltip is rich text, and rich text reads files. The words of models and
    peers must not decide that.
    """
    lines = (html.escape(line) for line in text.split("\n"))
    return f"<span>{'<br>'.join(lines)}</span>" if text else ""
