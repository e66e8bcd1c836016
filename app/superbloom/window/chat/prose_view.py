"""Read-only text that is as tall as its content and loads nothing from anywhere."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, QUrl, Signal
from PySide6.QtGui import (
    QBrush,
    QFocusEvent,
    QImage,
    QKeyEvent,
    QResizeEvent,
    QTextBlock,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
    QTextFormat,
    QTextFrameFormat,
    QTextOption,
    QTextTable,
    QWheelEvent,
)
from PySide6.QtWidgets import QFrame, QSizePolicy, QTextBrowser

from superbloom.window.chat.markdown_parts import keep_line_breaks
from superbloom.window.chat.reading_keys import scrolls_talk
from superbloom.window.theme import Theme, code_font, scaled_font
from superbloom.window.widgets.focus_bar import FocusBar
from superbloom.window.widgets.tips import plain_tip

LINE_HEIGHT = 145
PARAGRAPH_GAP = 10
INDENT = 26
HEADING_SCALES = {1: 1.5, 2: 1.3, 3: 1.15}
FEATURES = (
    QTextDocument.MarkdownFeature.MarkdownDialectGitHub
    | QTextDocument.MarkdownFeature.MarkdownNoHTML
)
OPENED_SCHEMES = ("http", "https")


class InertDocument(QTextDocument):
    """Pictures and style sheets named in a text are never read, wherever they lie."""

    def loadResource(self, kind: int, name: QUrl | str) -> object:
        return _nothing()


class ProseView(QTextBrowser):
    """Markdown or plain text."""

    link_clicked = Signal(QUrl)
    """An http or https link; nothing else is ever told."""

    def __init__(self, theme: Theme, name: str) -> None:
        super().__init__()
        self._theme = theme
        self._plain = False
        self._source = ""
        self._focus_bar: FocusBar | None = None
        document = InertDocument(self)
        document.setDocumentMargin(0)
        document.setUndoRedoEnabled(False)
        document.setIndentWidth(INDENT)
        option = QTextOption()
        option.setWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        document.setDefaultTextOption(option)
        self.setDocument(document)
        self.setAccessibleName(name)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setOpenLinks(False)
        self.setOpenExternalLinks(False)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.viewport().setAutoFillBackground(False)
        self.anchorClicked.connect(self._clicked)
        document.documentLayout().documentSizeChanged.connect(self._fit)
        theme.changed.connect(self._redraw)

    def show_markdown(self, source: str) -> None:
        self._plain, self._source = False, source
        self.document().setMarkdown(keep_line_breaks(source), FEATURES)
        self._dress()
        self._fit()

    def show_plain(self, source: str) -> None:
        self._plain, self._source = True, source
        self.document().setPlainText(source)
        _space_lines(self.document(), gap=0)
        self._fit()

    def ideal_width(self) -> int:
        """The width that the text takes without a line break, in pixels."""
        return round(self.document().idealWidth()) + 2

    def loadResource(self, kind: int, name: QUrl | str) -> object:
        return _nothing()

    def sizeHint(self) -> QSize:
        return QSize(400, self.height())

    def minimumSizeHint(self) -> QSize:
        return QSize(40, 10)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self._fit()

    def focusInEvent(self, event: QFocusEvent) -> None:
        if self._focus_bar is None and self.parentWidget() is not None:
            self._focus_bar = FocusBar(self._theme, self)
        if self._focus_bar is not None:
            self._focus_bar.show_focus(event)
        super().focusInEvent(event)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        if self._focus_bar is not None:
            self._focus_bar.hide()
        super().focusOutEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if scrolls_talk(event):
            event.ignore()
        else:
            super().keyPressEvent(event)

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.ignore()  # the transcript scrolls, not its parts

    def _clicked(self, url: QUrl) -> None:
        if url.scheme().lower() in OPENED_SCHEMES:
            self.link_clicked.emit(url)

    def _fit(self) -> None:
        height = max(1, round(self.document().size().height()))
        if height != self.height():
            self.setFixedHeight(height)

    def _redraw(self) -> None:
        if self._source:
            (self.show_plain if self._plain else self.show_markdown)(self._source)

    def _dress(self) -> None:
        """Qt's Markdown comes plain: give it our lines, headings, code and quotes."""
        document = self.document()
        cursor = QTextCursor(document)
        cursor.beginEditBlock()
        _name_pictures(document)
        block = document.begin()
        while block.isValid():
            self._dress_block(block)
            block = block.next()
        for frame in document.rootFrame().childFrames():
            if isinstance(frame, QTextTable):
                self._dress_table(frame)
        cursor.endEditBlock()

    def _dress_block(self, block: QTextBlock) -> None:
        cursor = QTextCursor(block)
        level = block.blockFormat().headingLevel()
        quoted = block.blockFormat().hasProperty(QTextFormat.Property.BlockQuoteLevel)
        cursor.mergeBlockFormat(self._block_format(block, level))
        for start, length, kind in _stretches(block):
            change = QTextCharFormat()
            if level:
                change.setFont(scaled_font(HEADING_SCALES.get(level, 1.0), bold=True))
            if kind.fontFixedPitch():
                change.setFont(code_font(0.95))
                change.setBackground(QBrush(self._theme.color("hover")))
            if kind.isAnchor():
                change.setForeground(QBrush(self._theme.color("accent")))
                change.setToolTip(plain_tip(kind.anchorHref()))
            elif quoted:
                change.setForeground(QBrush(self._theme.color("muted")))
            if change.propertyCount():
                cursor.setPosition(start)
                cursor.setPosition(start + length, QTextCursor.MoveMode.KeepAnchor)
                cursor.mergeCharFormat(change)

    def _block_format(self, block: QTextBlock, level: int) -> QTextBlockFormat:
        change = QTextBlockFormat()
        change.setLineHeight(LINE_HEIGHT, _PROPORTIONAL)
        in_list = block.textList() is not None
        first = block.blockNumber() == 0
        change.setTopMargin(0 if first or not level else PARAGRAPH_GAP)
        change.setBottomMargin(3 if in_list or level else PARAGRAPH_GAP)
        if in_list and (not block.next().isValid() or block.next().textList() is None):
            change.setBottomMargin(PARAGRAPH_GAP)
        return change

    def _dress_table(self, table: QTextTable) -> None:
        form = table.format()
        form.setBorder(1)
        form.setBorderBrush(QBrush(self._theme.color("border")))
        form.setBorderStyle(QTextFrameFormat.BorderStyle.BorderStyle_Solid)
        form.setBorderCollapse(True)
        form.setTopMargin(PARAGRAPH_GAP)
        form.setCellPadding(6)
        form.setCellSpacing(0)
        form.setBottomMargin(PARAGRAPH_GAP)
        table.setFormat(form)
        for column in range(table.columns()):
            cell = table.cellAt(0, column)
            kind = cell.format()
            kind.setBackground(QBrush(self._theme.color("ground")))
            cell.setFormat(kind)
        for row in range(table.rows()):
            for column in range(table.columns()):
                cursor = table.cellAt(row, column).firstCursorPosition()
                change = QTextBlockFormat()
                change.setBottomMargin(0)
                cursor.mergeBlockFormat(change)


def _nothing() -> QImage:
    """An empty answer would send Qt to the disk: it gets a picture of nothing."""
    nothing = QImage(1, 1, QImage.Format.Format_ARGB32)
    nothing.fill(Qt.GlobalColor.transparent)
    return nothing


_PROPORTIONAL = QTextBlockFormat.LineHeightTypes.ProportionalHeight.value


def _space_lines(document: QTextDocument, gap: int) -> None:
    change = QTextBlockFormat()
    change.setLineHeight(LINE_HEIGHT, _PROPORTIONAL)
    change.setBottomMargin(gap)
    cursor = QTextCursor(document)
    cursor.select(QTextCursor.SelectionType.Document)
    cursor.mergeBlockFormat(change)


def _stretches(block: QTextBlock) -> list[tuple[int, int, QTextCharFormat]]:
    """Stretches of one format in a block: position, length, format."""
    found = []
    iterator = block.begin()
    while not iterator.atEnd():
        fragment = iterator.fragment()
        found.append((fragment.position(), fragment.length(), fragment.charFormat()))
        iterator += 1
    return found


def _name_pictures(document: QTextDocument) -> None:
    """Where a text wants a picture, say so in words: nothing is loaded."""
    pictures = []
    block = document.begin()
    while block.isValid():
        for start, length, kind in _stretches(block):
            if kind.isImageFormat():
                shown = kind.toImageFormat()
                alt = shown.property(QTextFormat.Property.ImageAltText) or shown.name()
                pictures.append((start, length, str(alt)))
        block = block.next()
    cursor = QTextCursor(document)
    for start, length, alt in reversed(pictures):
        cursor.setPosition(start)
        cursor.setPosition(start + length, QTextCursor.MoveMode.KeepAnchor)
        plain = QTextCharFormat()
        plain.setFontItalic(True)
        cursor.insertText(f"[picture not loaded: {alt}]", plain)
