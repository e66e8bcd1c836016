"""The conversations, newest first: choose, begin, rename, delete."""

from __future__ import annotations

import time
from typing import Any

from PySide6.QtCore import (
    QAbstractListModel,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QRect,
    QSize,
    Qt,
    Signal,
)
from PySide6.QtGui import QAction, QKeySequence, QPainter
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QHBoxLayout,
    QLineEdit,
    QListView,
    QMenu,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from superbloom.domain.conversation import Conversation
from superbloom.window.actions import Actions
from superbloom.window.store import Store
from superbloom.window.theme import Space, Theme, scaled_font
from superbloom.window.widgets.buttons import IconButton
from superbloom.window.widgets.confirm import confirm
from superbloom.window.widgets.labels import label, paragraph
from superbloom.window.widgets.tips import plain_tip
from superbloom.window.words import when_words

WIDTH = 252
ROW_HEIGHT = 48
ID_ROLE = Qt.ItemDataRole.UserRole
WHEN_ROLE = Qt.ItemDataRole.UserRole + 1

Index = QModelIndex | QPersistentModelIndex


class ConversationRows(QAbstractListModel):
    """The store's conversations for Qt's views.

    Rows are moved, never reset: what a view knows of a row (its editor, say) stays with it.
    """

    renamed = Signal(str, str)
    rearranged = Signal()
    """The rows are as in the store again."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._rows: list[Conversation] = []
        self.rearranging = False
        """While rows come and go, what a view takes for chosen was chosen by nobody."""
        self._store = store
        store.conversations_changed.connect(self._take)

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 (Qt's signature)
        return 0 if parent.isValid() else len(self._rows)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not 0 <= index.row() < len(self._rows):
            return None
        row = self._rows[index.row()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            return row.title
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain_tip(f"{row.title}\n{row.model}")
        if role == ID_ROLE:
            return row.id
        if role == WHEN_ROLE:
            return when_words(row.updated_at, time.time())
        return None

    def setData(self, index: Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        row = self._rows[index.row()]
        if role != Qt.ItemDataRole.EditRole or not value.strip() or value == row.title:
            return False
        self.renamed.emit(row.id, value)
        return True

    def flags(self, index: Index) -> Qt.ItemFlag:
        return super().flags(index) | Qt.ItemFlag.ItemIsEditable

    def row_of(self, conversation: str) -> int:
        """Its row, -1 if there is none."""
        return next((n for n, row in enumerate(self._rows) if row.id == conversation), -1)

    def _take(self) -> None:
        fresh = list(self._store.conversations.values())
        if [row.id for row in fresh] != [row.id for row in self._rows]:
            self.rearranging = True
            self._remove_all_but({row.id for row in fresh})
            if self._rows:
                for number, row in enumerate(fresh):
                    self._bring(row, number)
            elif fresh:
                self.beginInsertRows(QModelIndex(), 0, len(fresh) - 1)
                self._rows = list(fresh)
                self.endInsertRows()
            self.rearranging = False
            self.rearranged.emit()
        before, self._rows = self._rows, fresh
        for number, (old, new) in enumerate(zip(before, fresh, strict=True)):
            if old != new:
                self.dataChanged.emit(self.index(number), self.index(number))

    def _remove_all_but(self, kept: set[str]) -> None:
        for number in reversed(range(len(self._rows))):
            if self._rows[number].id not in kept:
                self.beginRemoveRows(QModelIndex(), number, number)
                del self._rows[number]
                self.endRemoveRows()

    def _bring(self, row: Conversation, number: int) -> None:
        """Have it stand at `number`, where all before it are right already."""
        if number < len(self._rows) and self._rows[number].id == row.id:
            return
        found = self.row_of(row.id)
        if found < 0:
            self.beginInsertRows(QModelIndex(), number, number)
            self._rows.insert(number, row)
            self.endInsertRows()
        else:
            self.beginMoveRows(QModelIndex(), found, found, QModelIndex(), number)
            self._rows.insert(number, self._rows.pop(found))
            self.endMoveRows()


class _RowPainter(QStyledItemDelegate):
    """Title above, time below, on a rounded ground when chosen."""

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(parent)
        self._theme = theme

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(WIDTH - 40, ROW_HEIGHT)

    def paint(self, painter: QPainter, option: Any, index: Index) -> None:
        area: QRect = option.rect.adjusted(Space.S, 2, -Space.S, -2)
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        over = bool(option.state & QStyle.StateFlag.State_MouseOver)
        focused = bool(option.state & QStyle.StateFlag.State_HasFocus)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if chosen or over:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(self._theme.color("surface" if chosen else "hover"))
            painter.drawRoundedRect(area, 9, 9)
        if focused:
            painter.setPen(self._theme.color("accent"))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(area, 9, 9)
        text = area.adjusted(Space.M, 6, -Space.M, -5)
        painter.setPen(self._theme.color("text"))
        painter.setFont(scaled_font(1.0, bold=chosen))
        title = painter.fontMetrics().elidedText(
            str(index.data()), Qt.TextElideMode.ElideRight, text.width()
        )
        painter.drawText(text, Qt.AlignmentFlag.AlignTop, title)
        painter.setPen(self._theme.color("muted"))
        painter.setFont(scaled_font(0.85))
        painter.drawText(text, Qt.AlignmentFlag.AlignBottom, str(index.data(WHEN_ROLE)))
        painter.restore()

    def updateEditorGeometry(self, editor: QWidget, option: Any, index: Index) -> None:
        editor.setGeometry(option.rect.adjusted(Space.S, 8, -Space.S, -8))

    def createEditor(self, parent: QWidget, option: Any, index: Index) -> QWidget:
        editor = super().createEditor(parent, option, index)
        editor.setAccessibleName("Title")
        return editor

    def setEditorData(self, editor: QWidget, index: Index) -> None:
        """What is being typed stays when the conversation changes meanwhile."""
        if not (isinstance(editor, QLineEdit) and editor.isModified()):
            super().setEditorData(editor, index)


class ConversationList(QWidget):
    """The left column of the chat page."""

    new_wanted = Signal()

    def __init__(self, store: Store, actions: Actions, theme: Theme) -> None:
        super().__init__()
        self.setObjectName("conversations")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setFixedWidth(WIDTH)
        self._store = store
        self._actions = actions
        self.rows = ConversationRows(store)
        self.rows.setParent(self)
        self.rows.renamed.connect(actions.rename_conversation)
        self.rows.rearranged.connect(self._choose)
        new = IconButton(theme, "plus", "New conversation (Ctrl+N)", size=18)
        new.clicked.connect(self.new_wanted)
        head = QHBoxLayout()
        head.setContentsMargins(Space.L, Space.M, Space.M, Space.S)
        head.addWidget(label("Conversations", bold=True))
        head.addStretch(1)
        head.addWidget(new)
        self.view = self._make_view(theme)
        self._empty = paragraph("Your conversations will stand here.", scale=0.92)
        self._empty.setContentsMargins(Space.L, 0, Space.L, 0)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, Space.S)
        column.setSpacing(Space.XS)
        column.addLayout(head)
        column.addWidget(self._empty)
        column.addWidget(self.view, 1)
        store.current_changed.connect(self._choose)
        store.conversations_changed.connect(self._show_empty)
        theme.changed.connect(self.view.viewport().update)
        self._show_empty()

    def _make_view(self, theme: Theme) -> QListView:
        view = QListView()
        view.setModel(self.rows)
        view.setItemDelegate(_RowPainter(theme, view))
        view.setAccessibleName("Conversations")
        view.setFrameShape(QFrame.Shape.NoFrame)
        view.setMouseTracking(True)
        view.setUniformItemSizes(True)
        view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        view.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        view.setEditTriggers(QAbstractItemView.EditTrigger.EditKeyPressed)
        view.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        view.customContextMenuRequested.connect(self._show_menu)
        view.selectionModel().currentChanged.connect(self._chosen)
        remove = QAction("Delete", view)
        remove.setShortcut(QKeySequence.StandardKey.Delete)
        remove.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        remove.triggered.connect(lambda: self.ask_delete(view.currentIndex()))
        view.addAction(remove)
        return view

    def ask_delete(self, index: Index) -> None:
        """Delete a conversation once the user has said so twice."""
        if index.isValid():
            self._ask_delete(str(index.data(ID_ROLE)), str(index.data()))

    def _ask_delete(self, conversation: str, title: str) -> None:
        confirm(
            self,
            f"Delete “{title}”?",
            "The conversation and its answers are gone for good.",
            "Delete",
            lambda: self._actions.delete_conversation(conversation),
        )

    def _show_menu(self, place: QPoint) -> None:
        index = self.view.indexAt(place)
        if not index.isValid():
            return
        # rows may move while the menu is open: it is about this conversation all the same
        conversation, title = str(index.data(ID_ROLE)), str(index.data())
        menu = QMenu(self.view)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction("Rename", lambda: self._rename(conversation))
        menu.addAction("Delete", lambda: self._ask_delete(conversation, title))
        menu.popup(self.view.viewport().mapToGlobal(place))

    def _rename(self, conversation: str) -> None:
        row = self.rows.row_of(conversation)
        if row >= 0:
            self.view.edit(self.rows.index(row))

    def _chosen(self, index: QModelIndex) -> None:
        if index.isValid() and not self.rows.rearranging:
            self._actions.open_conversation(str(index.data(ID_ROLE)))

    def _choose(self) -> None:
        row = self.rows.row_of(self._store.current)
        selection = self.view.selectionModel()
        if row < 0:
            selection.clear()
        elif selection.currentIndex().row() != row:
            self.view.setCurrentIndex(self.rows.index(row))

    def _show_empty(self) -> None:
        self._empty.setVisible(not self._store.conversations)
