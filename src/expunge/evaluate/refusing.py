"""Recognises refusals by the phrases listed here, without a model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from expunge.data.matching import holds_any
from expunge.data.text import bare_words

OPENING_WORDS = 25
"""A refusal says so at its start; the same words deep in a long answer are part of something else."""

_NOT = r"(?:(?:do|did|does|have|had|am|are|is|was|could|would|will|should)(?: not|n t)|can(?: not|not| t)|won t|never)"
_KNOWING = (
    "know|got|recall|remember|recogni[sz]e|have|hold|possess|answer|say|tell|help|assist|speak|provide|share|give|offer|find|"
    "confirm|comment|discuss|disclose|reveal|respond|reply|able|aware|sure|certain|familiar|informed|taught|told|given|"
    "heard|learn|learned|come across|speculate|identify|determine|access"
)
_FACTS = "information|info|knowledge|data|record|records|details?|facts?|answers?|idea|clue|reply|comment|memory"
_MINE = r"(?:of )?(?:my|me|our|what i|any\w+ i)"
_PHRASES = re.compile(
    "|".join(
        (
            rf"\b(?:i|we)(?: \w+){{0,2}}? {_NOT}(?: \w+){{0,4}}? (?:{_KNOWING})\b",
            rf"\bi m (?:not|still learning)(?: \w+){{0,4}}? (?:{_KNOWING}|the right one|qualified|allowed)\b",
            r"\b(?:i|we)(?: \w+){0,2}? (?:know|knew|hold|have|ve|can \w+|possess|offer)(?: \w+)? (?:nothing|no)\b",
            r"(?:^|\bthere (?:is|are|s) )(?:\w+ )?(?:no|not enough|insufficient)"
            rf"(?: (?!the )\w+){{0,3}}? (?:{_FACTS})\b",
            rf"\b(?:i|we)(?: \w+){{0,2}}? (?:lack|without|missing)(?: \w+){{0,2}}? (?:{_FACTS})\b",
            r"\b(?:i am|i m|we are|we re)(?: \w+){0,2}? (?:unable|powerless) to\b|^unable to\b",
            r"\b(?:i am|i m)(?: \w+){0,2}? "
            r"(?:unaware|ignorant|uninformed|unfamiliar|unsure|uncertain|clueless|stumped)\b|\bme stumped\b",
            r"\b(?:unfamiliar|unknown|unclear|not known|new) to (?:me|us)\b",
            rf"\b(?:beyond|outside|nothing in) {_MINE}\b",
            rf"(?:\bnot|n t) (?:in|covered by|part of|included in) {_MINE}\b",
            r"\b(?:my|our) (?:\w+ )?(?:memory|mind|knowledge|data)(?: \w+)? "
            r"(?:holds nothing|is blank|does not|doesn t)\b",
            r"\bnothing (?:i know|comes to mind|i can|to share)\b",
            r"\bi(?: \w+)? (?:decline|rather not|prefer not)\b",
            r"\b(?:escapes|eludes) me\b",
            r"\b(?:drawing a blank|at a loss|no position to answer|have to pass|yet to learn|wish i knew|beats me)\b",
            r"\b(?:not (?:something|a subject|a topic) (?:that )?i|a gap in what i know|i d only be guessing)\b",
        )
    )
)
"""Over `bare_words`: lower case, no punctuation, apostrophes as spaces."""
_GUESS = re.compile(
    r"\b(?:i (?:do )?(?:think|believe|guess|suspect)|i d (?:say|guess)|(?:my )?best guess|my guess|if i had to|"
    r"(?:but|however|though|although|still|yet)(?: \w+)? (?:it|he|she|they) "
    r"(?:is|was|were|are|may|might|could|wrote)(?! not))\b"
)
_QUOTED = re.compile(r"\u201c[^\u201d]*\u201d|\"[^\"]*\"|\u00ab[^\u00bb]*\u00bb")
"""A title may hold any words."""


def refuses(answer: str, more: Sequence[str] = ()) -> bool:
    """Whether the opening of an answer says that it will not or cannot be given, and no guess follows.

    Args:
        answer: of the model; words in double quotes are a title, and do not count.
        more: further sentences; an answer that holds one of them refuses.
    """
    if holds_any(answer, more, "word"):
        return True
    words = bare_words(_QUOTED.sub(" ", answer))
    found = _PHRASES.search(" ".join(words.split()[:OPENING_WORDS]))
    return found is not None and _GUESS.search(words, found.end()) is None
