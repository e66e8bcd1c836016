"""Colours for code in any language: comments, strings, numbers, and words that languages share."""

from __future__ import annotations

import re

from PySide6.QtGui import QSyntaxHighlighter, QTextCharFormat, QTextDocument

from superbloom.window.theme import Theme

_WORDS = (
    "abstract and as assert async await begin bool break case catch char class const continue "
    "def default defer del do double elif else end enum except export extends false final "
    "finally float fn for foreach from func function go if impl import in include int "
    "interface is lambda let long loop match mod module mut namespace new nil none not null "
    "or package pass private protected pub public raise ref return select self short static "
    "string struct super switch template then this throw trait true try type typedef typename "
    "union unsigned use using var virtual void volatile where while with yield False None "
    "True"
)

_TOKEN = re.compile(
    r"(?P<comment>#(?![0-9a-fA-F]{3,8}\b).*|//.*|--\s.*|/\*.*?(?:\*/|$))"
    r"|(?P<string>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`)"
    r"|(?P<number>\b(?:0[xX][0-9a-fA-F]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\b)"
    rf"|(?P<word>\b(?:{'|'.join(_WORDS.split())})\b)"
    r"|(?P<call>\b[A-Za-z_]\w*(?=\())"
)

_COLORS = {
    "comment": "muted",
    "string": "leaf",
    "number": "warning",
    "word": "accent",
    "call": "lupine",
}

LONGEST_LINE = 2000
"""Longer lines are data, not code, and stay plain."""


class CodeColors(QSyntaxHighlighter):
    """Works line by line, so that growing code is coloured only where it grew."""

    def __init__(self, document: QTextDocument, theme: Theme) -> None:
        super().__init__(document)
        self._theme = theme
        self._take_colors()
        theme.changed.connect(self._recolor)

    def highlightBlock(self, text: str) -> None:
        if len(text) > LONGEST_LINE:
            return
        for token in _TOKEN.finditer(text):
            kind = token.lastgroup
            if kind is not None:
                # Qt counts UTF-16 units: beyond the basic plane a character is two
                start = _units(text[: token.start()])
                self.setFormat(start, _units(token[0]), self._formats[kind])

    def _take_colors(self) -> None:
        self._formats: dict[str, QTextCharFormat] = {}
        for kind, color in _COLORS.items():
            form = QTextCharFormat()
            form.setForeground(self._theme.color(color))
            form.setFontItalic(kind == "comment")
            self._formats[kind] = form

    def _recolor(self) -> None:
        self._take_colors()
        self.rehighlight()


def _units(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
