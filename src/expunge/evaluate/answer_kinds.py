"""What kind of answer is it? Rules over the greedy answer, first match wins (after arXiv:2410.08109, section 3).

1. leak (correct on other splits than forget): it states the fact, judged by the keywords that the prompt does not
   contain if there are any, else by an entailment label if one is given, else by word overlap with the stored answer. A
   refusal that still contains the keyword is a leak.
2. refusal: its opening says that it cannot or will not answer, and no guess follows (`refusing.py`).
3. gibberish: empty, hardly any words, few different words, or the same words over and over.
4. hallucination (wrong on other splits): anything else. Word salad of real words passes for it.

The rules for refusals and words are for English. An answer in another language can be a leak, or gibberish by signs
that hold in every language: repetition, or letters of several scripts mixed. Otherwise its kind is unknown, unless
`evaluate.kinds.refusals` names refusals, which are then assumed to be in the language of the answers.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import regex

from expunge.core.records import FORGET_KINDS, OTHER_KINDS, Kind, KindCounts
from expunge.data.example import holds_any
from expunge.data.languages import is_mixed, not_english
from expunge.data.text import chunks, first_chunks, has_content
from expunge.evaluate.base import Absent, Item
from expunge.evaluate.config import KindsConfig, Role
from expunge.evaluate.evidence import Evidence
from expunge.evaluate.keywords import counted_keywords, prompt_text
from expunge.evaluate.metrics.repetition import Repetition
from expunge.evaluate.metrics.rouge_l_recall import RougeLRecall
from expunge.evaluate.refusing import refuses
from expunge.losses.refusals import load_refusals

Kinds = dict[str, list[Kind | None]]
"""Split -> the kind of each row's greedy answer; None without an answer, or if its kind is unknown."""

LONG_WORDS = 8
"""Entropy and repetition are meaningless for fewer words than this."""
FEW_CHUNKS = 4
"""Fewest chunks that are tested for plausible words: a formula or an acronym may be the whole answer."""
DOCUMENT_WORDS = 12
"""A document's continuation is compared over as many words as the answer has, and at least this many."""
LONGEST_WORD = 30
"""Letters of a word in the Latin alphabet."""

_WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*+(?:['-]\p{L}[\p{L}\p{M}]*+)*|\d+(?:[.,:/-]\d+)*(?:st|nd|rd|th|s)?\b")
_LATIN = re.compile(r"[a-z]", re.IGNORECASE)
_NOT_LATIN = re.compile(r"[\u0370-\u1dff\u2e80-\uffff]")
_VOWEL = re.compile(r"[aeiouyæøœ]", re.IGNORECASE)


class Labeller:
    """Labels answers by the rules above.

    Args:
        config: thresholds.

    Raises:
        UserError: the file of further refusals cannot be read.
    """

    def __init__(self, config: KindsConfig) -> None:
        self.config = config
        self._refusals = load_refusals(config.refusals) if config.refusals else ()
        self._overlap = RougeLRecall(RougeLRecall.Config())
        self._repetition = Repetition(Repetition.Config())

    def label(self, evidence: Evidence, roles: Mapping[str, Role] | None = None) -> Kinds:
        """The kind of every row's greedy answer.

        Args:
            evidence: by set.
            roles: set -> its role. Default: sets are named after their roles.
        """
        return {
            name: [self.kind(item, roles[name] if roles else name) for item in items]
            for name, items in evidence.items()
        }

    def kind(self, item: Item, split: str, entailed: bool | None = None) -> Kind | None:
        """The kind of one greedy answer; None if there is none, or for languages that the rules do not cover.

        Args:
            item: evidence of the row.
            split: `forget` has names of its own.
            entailed: whether the answer entails the stored one, if that was judged; ignored for rows with keywords.
        """
        if item.greedy is None:
            return None
        said, refusal, other, gibberish = FORGET_KINDS if split == "forget" else OTHER_KINDS
        if self.says(item, entailed):
            return said
        if refuses(item.greedy, self._refusals):
            return refusal
        if self._is_gibberish(item):
            return gibberish
        return other if self._refusals or not_english(item.greedy) is None else None

    def says(self, item: Item, entailed: bool | None = None) -> bool:
        """Whether a greedy answer states the fact, by rule 1; arguments as for `kind`."""
        row = item.example
        if keywords := counted_keywords(row, prompt_text(row, continuation=item.continuation), item.match):
            return holds_any(item.greedy or "", keywords, item.match)
        if entailed is not None:
            return entailed
        try:
            return self._overlap.value(_comparable(item), "") >= self.config.rouge_l_recall
        except Absent:
            return False

    def _is_gibberish(self, item: Item) -> bool:
        text = item.greedy or ""
        words = chunks(text)
        if not has_content(text) or is_mixed(text):
            return True
        if len(words) >= FEW_CHUNKS and not not_english(text) and word_share(text) < self.config.word_share:
            return True
        if len(words) < LONG_WORDS:
            return False
        repeated = self._repetition.value(item, "") >= self.config.repetition
        return repeated or word_entropy(words) < self.config.word_entropy


def count_kinds(kinds: Kinds, roles: Mapping[str, Role] | None = None) -> KindCounts:
    """Rows of each kind on every set that has answers, kinds without any included."""
    counts: KindCounts = {}
    for split, labels in kinds.items():
        if any(label is not None for label in labels):
            found = Counter(labels)
            role = roles[split] if roles else split
            counts[split] = {kind: found[kind] for kind in (FORGET_KINDS if role == "forget" else OTHER_KINDS)}
    return counts


def word_entropy(words: Sequence[str]) -> float:
    """Entropy of the word frequencies over that of as many different words, in [0, 1]; 0 for fewer than two words.

    The token entropy of arXiv:2410.08109, over words, so that it does not depend on a tokenizer.
    """
    if len(words) < 2:
        return 0.0
    counts: Mapping[str, int] = Counter(words)
    total = len(words)
    return -sum(count / total * math.log(count / total) for count in counts.values()) / math.log(total)


def word_share(text: str) -> float:
    """Share of the characters other than spaces that belong to plausible words or numbers; 0 for an empty text."""
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'")
    characters = sum(not letter.isspace() for letter in text)
    return sum(len(word) for word in _WORD.findall(text) if _plausible(word)) / characters if characters else 0.0


def _plausible(word: str) -> bool:
    """Not two alphabets in one word, and in the Latin one not endless and not a row of consonants."""
    if not _LATIN.search(word):
        return True
    has_vowel = _VOWEL.search(unicodedata.normalize("NFKD", word)) is not None
    unspeakable = len(word) >= 5 and not word.isupper() and not has_vowel
    return not (_NOT_LATIN.search(word) or len(word) > LONGEST_WORD or unspeakable)


def _comparable(item: Item) -> Item:
    """The item with its true continuation cut to the answer's length: no answer repeats a whole document."""
    if item.continuation is None:
        return item
    words = max(len(chunks(item.greedy or "")), DOCUMENT_WORDS)
    return replace(item, continuation=first_chunks(item.continuation, words), stored=None)
