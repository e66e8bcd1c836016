"""`superbloom chat`: a conversation in the terminal, or one question."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Any

from superbloom.cli.interrupts import Terminated
from superbloom.cli.node_access import Absent, node
from superbloom.cli.terminal import (
    Progress,
    WrongUsage,
    print_error,
    print_json,
    printable,
)
from superbloom.control.messages import GetStatus, NewConversation, NodeStatus, SendMessage
from superbloom.domain.conversation import Conversation
from superbloom.domain.errors import InputRejected, NodeUnreachable, SuperbloomError
from superbloom.domain.record import to_plain
from superbloom.domain.sampling import EndReason, SamplingSettings
from superbloom.storage.paths import DataFolder

if TYPE_CHECKING:
    from superbloom.cli.answer import Answered
    from superbloom.cli.node_link import NodeLink

INTERRUPTED = 130
PATIENCE = 3600.0

HELP = "/new begins a new conversation, /quit or Ctrl-D leaves, Ctrl-C stops an answer."


def add_words(words: Any, folder: argparse.ArgumentParser) -> None:
    """Declare `chat`."""
    parser = words.add_parser(
        "chat",
        parents=[folder],
        help="talk to the model",
        description="Talk to the model. Without a running node one is started and stopped again.",
        epilog=HELP,
    )
    parser.add_argument("--once", metavar="TEXT", help="ask one question, print the answer, end")
    parser.add_argument("--model", default="", help="another model than the chosen one")
    parser.add_argument("--system", default="", metavar="TEXT", help="how the model shall behave")
    sampling = parser.add_argument_group("how the next word is chosen")
    sampling.add_argument("--temperature", type=float, help="0 is greedy (default 0.7)")
    sampling.add_argument("--top-k", type=int, metavar="K", help="only the K likeliest tokens")
    sampling.add_argument("--top-p", type=float, metavar="P", help="likeliest tokens up to P")
    sampling.add_argument("--min-p", type=float, metavar="P", help="tokens at least P x the best")
    sampling.add_argument("--repetition-penalty", type=float, metavar="X", help="1 is none")
    sampling.add_argument("--seed", type=int, help="the same seed gives the same text")
    sampling.add_argument("--stop", action="append", metavar="TEXT", help="end there; repeatable")
    sampling.add_argument("--max-tokens", type=int, metavar="N", help="longest answer in tokens")
    parser.add_argument(
        "--exact",
        action="store_true",
        help="send the text to other computers unrounded, even where a slow line makes the answer "
        "begin later",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help="give up when no text comes for so long (default: an hour)",
    )
    parser.add_argument("--json", action="store_true", help="with --once: print one JSON object")
    parser.add_argument("--verbose", action="store_true", help="say what goes on, on stderr")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """The command; gives the exit code."""
    sampling = _sampling(given)
    if given.json and given.once is None:
        raise WrongUsage("--json goes with --once.")
    if given.once is not None:
        _check_text(given.once)
    progress = Progress(verbose=given.verbose)
    progress.say("Starting …")
    try:
        with node(DataFolder.at(given.data_dir), Absent.BORROW) as link:
            progress.clear()
            chat = _Chat(link, given, sampling, progress)
            if given.once is not None:
                return chat.once(given.once)
            return chat.converse()
    finally:
        progress.clear()


def _sampling(given: argparse.Namespace) -> SamplingSettings:
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "max_tokens")
    values = {name: value for name in names if (value := getattr(given, name)) is not None}
    values["exact"] = given.exact
    if given.stop:
        values["stop"] = tuple(given.stop)
    try:
        return SamplingSettings(**values)
    except InputRejected as error:
        raise WrongUsage(error.message, error.next_step) from error


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise WrongUsage("The text is not valid in this terminal's encoding.") from error
    if not text.strip():
        raise WrongUsage("The message is empty.", "Write something to ask.")


class _Chat:
    """One conversation, begun with its first question."""

    def __init__(
        self,
        link: NodeLink,
        given: argparse.Namespace,
        sampling: SamplingSettings,
        progress: Progress,
    ) -> None:
        self._link = link
        self._given = given
        self._sampling = sampling
        self._progress = progress
        self._conversation: Conversation | None = None
        self._raw = not sys.stdout.isatty()

    def once(self, text: str) -> int:
        """Ask one question; the exit code."""
        given = self._given
        answered = self._ask(text, quiet=given.json)
        if given.json:
            answer = answered.answer
            print_json(
                {
                    "text": answer.text,
                    "reason": str(answer.end or EndReason.FAILED),
                    "tokens": answer.tokens,
                    "tokens_per_second": answer.tokens_per_second,
                    "first_token_seconds": answer.first_token_seconds,
                    "chain": list(answered.chain),
                    "hops": to_plain(answered.hops),
                    "conversation": answer.conversation,
                    "message": answer.id,
                }
            )
        if answered.failure is not None:
            raise answered.failure
        return INTERRUPTED if answered.interrupted else 0

    def converse(self) -> int:
        """Ask what is typed until the user leaves; the exit code."""
        terminal = sys.stdin.isatty()
        if terminal:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401, PLC0415 (there on most systems; edits the line)
            status = self._link.ask(GetStatus(), NodeStatus)
            sys.stderr.write(f"{self._given.model or status.model}. {HELP}\n")
        leaving = False
        failed = False
        while True:
            try:
                text = input("> " if terminal else "").strip()
                leaving = False
                if text == "/quit":
                    break
                failed = not self._take(text)
            except EOFError:
                sys.stderr.write("\n" if terminal else "")
                break
            except KeyboardInterrupt as interrupt:
                if leaving or isinstance(interrupt, Terminated) or not terminal:
                    raise
                leaving = True
                sys.stderr.write("\nCtrl-C once more, or Ctrl-D, leaves.\n")
        return 1 if failed and not terminal else 0

    def _take(self, text: str) -> bool:
        """Answer a typed line; False if that failed in a way that another try may mend."""
        if not text:
            return True
        if text == "/new":
            self._conversation = None
            return True
        if text == "/help":
            sys.stderr.write(f"{HELP}\n")
            return True
        try:
            _check_text(text)
            answered = self._ask(text, quiet=False)
        except NodeUnreachable:
            raise
        except SuperbloomError as error:
            print_error(error)
            return False
        if answered.failure is not None:
            print_error(answered.failure)
            return False
        if sys.stdout.isatty() and answered.answer.tokens:
            self._progress.note(_figures(answered))
        return True

    def _ask(self, text: str, *, quiet: bool) -> Answered:
        from superbloom.cli.answer import AnswerRun  # noqa: PLC0415 (after the node was started)

        if self._conversation is None:
            begin = NewConversation(model=self._given.model, system=self._given.system)
            self._conversation = self._link.ask(begin, Conversation)
        written: list[str] = []

        def write(piece: str) -> None:
            written.append(piece)
            if not quiet:
                sys.stdout.write(piece if self._raw else printable(piece))
                sys.stdout.flush()

        answering = AnswerRun(
            self._link,
            self._conversation.model,
            write=write,
            progress=self._progress,
            patience=self._given.timeout,
        )
        question = SendMessage(
            conversation=self._conversation.id, text=text, sampling=self._sampling
        )
        try:
            return answering.run(question)
        finally:
            if written and not quiet and not written[-1].endswith("\n"):
                sys.stdout.write("\n")
                sys.stdout.flush()


def _figures(answered: Answered) -> str:
    answer = answered.answer
    words = f"[{answer.tokens} tokens, {answer.tokens_per_second:.1f} a second"
    if answered.chain:
        words += f", through {' → '.join(map(str, answered.hops or answered.chain))}"
    if answer.end is EndReason.LENGTH:
        words += "; cut at --max-tokens"
    if answer.end is EndReason.CONTEXT_FULL:
        words += "; the context is full: /new begins a new conversation"
    if answer.end is EndReason.STOPPED:
        words += "; stopped"
    return words + "]"
