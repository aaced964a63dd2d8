"""Is a text in a language for which rules or models of other languages say nothing? Scripts, and the commonest words.

No library serves here: those that tell a hundred languages apart call every third short answer with invented names
something else, and an English answer must never lose its score. Where there is little evidence, a text passes.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path

from expunge.core.toml import read_toml
from expunge.data.text import fold, is_spaced, words

OWN_SCRIPT = 0.7
"""Smallest share of the letters of a text that are of its language's script: names may be of others."""
_FEWEST_WORDS = 3
"""Function words of another language that prove it; two are enough where they are most of a short text."""
_FEWEST_LETTERS = 20
"""A shorter text may be a formula."""
_EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO")


def not_english(text: str) -> str | None:
    """What a text is instead of English; None if it is English or may be.

    Args:
        text: any text.
    """
    counts = scripts(text)
    total = counts.total()
    if total and counts["LATIN"] < OWN_SCRIPT * total:
        script = next(name for name, _ in counts.most_common() if name != "LATIN")
        return f"text in {'Chinese, Japanese or Korean' if script in _EAST_ASIAN else script.capitalize()} letters"
    return _other_language(text)


@lru_cache(maxsize=4096)
def scripts(text: str) -> Counter[str]:
    """First word of the Unicode name of every letter, e.g. LATIN or CJK."""
    return Counter(
        unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0]
        for letter in unicodedata.normalize("NFKC", text)
        if letter.isalpha()
    )


def is_mixed(text: str, most: float = 0.6) -> bool:
    """Whether letters of several scripts are mixed and none makes up such a share; East Asian scripts count as one."""
    counts: Counter[str] = Counter()
    for script, count in scripts(text).items():
        counts["CJK" if script in _EAST_ASIAN else script] += count
    return counts.total() >= _FEWEST_LETTERS and max(counts.values()) < most * counts.total()


def is_unspaced(text: str) -> bool:
    """Whether most letters of a text are of scripts without spaces between words."""
    letters = [letter for letter in fold(text) if letter.isalpha()]
    return sum(map(is_spaced, letters)) < len(letters) / 2


@lru_cache(maxsize=4096)
def _other_language(text: str) -> str | None:
    found = words(text)
    hits = {name: sum(word in known for word in found) for name, known in _function_words().items()}
    english = hits.pop("en")
    name, most = max(hits.items(), key=lambda hit: hit[1])
    proved = most >= _FEWEST_WORDS and most > 2 * english and most >= len(found) / 6
    short = most == 2 and not english and most > len(found) / 2
    return f"text that reads as another language than English ({name})" if proved or short else None


@cache
def _function_words() -> dict[str, frozenset[str]]:
    tables = read_toml(Path(__file__).with_name("function_words.toml"))
    return {name: frozenset(map(fold, known.split())) for name, known in tables.items()}
