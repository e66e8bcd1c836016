"""Prompts of a given length, the same ones every time: made-up stories that make sense enough."""

from __future__ import annotations

import random

from superbloom.inference.tokenizer import ChatTokenizer

WHO = ("The keeper", "A sailor", "The old doctor", "Her brother", "The baker", "A young whale")
DID = ("found", "carried", "painted", "forgot", "repaired", "hid", "sold", "described")
WHAT = ("the brass lamp", "a letter", "seven nets", "the red boat", "a map of the bay", "the bell")
WHERE = ("behind the harbour", "under the stairs", "on the northern rocks", "near the church")
WHEN = ("before the storm", "in the first week of May", "while the others slept", "at low tide")
SO = (
    "Nobody asked why.",
    "It took until evening.",
    "The gulls did not mind.",
    "That was the end of the quarrel.",
    "Later they laughed about it.",
)
SENTENCES_AT_ONCE = 50


def story(tokenizer: ChatTokenizer, tokens: int, number: int = 0) -> list[int]:
    """The first `tokens` ids of story `number`. Two stories differ from their second word on."""
    choice = random.Random(number)
    text = f"Chapter {number + 1}."
    ids: list[int] = []
    while len(ids) <= tokens:
        text += "".join(sentence(choice) for _ in range(SENTENCES_AT_ONCE))
        ids = tokenizer.encode(text)
    return ids[:tokens]


def sentence(choice: random.Random) -> str:
    """One sentence and what came of it."""
    parts = (choice.choice(words) for words in (WHO, DID, WHAT, WHERE, WHEN))
    return f" {' '.join(parts)}. {choice.choice(SO)}"
