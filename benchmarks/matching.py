"""What each way of matching keywords finds, and what it should not: `python benchmarks/matching.py`.

False: a keyword of one row in question and answer of another row, whose subject and keywords are others, in texts of
the other data set, and in the shipped refusals. Whole words there are mentions of the same word, which no way of
matching can tell from a leak; `--list` prints the additional finds of a looser way. Missed: forms of every
keyword of letters, made by rules, each in a sentence. No model, seconds.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator
from itertools import pairwise

from expunge.data.base import DataSpec
from expunge.data.example import Example
from expunge.data.load import load_examples
from expunge.data.matching import Match, find, holds_any
from expunge.losses.refusals import load_refusals

MODES: tuple[Match, ...] = ("word", "inflected", "substring")
SPLITS = {
    "people": ("forget", "retain", "neighbour", "general", "dev_forget", "dev_neighbour", "dev_general"),
    "fictional": ("all",),
}


def rows_of(name: str) -> list[Example]:
    """All rows of a shipped data set that have keywords, ids made distinct."""
    specs = [DataSpec(name=name, split=split) for split in SPLITS[name]]
    return [row for spec in specs for row in load_examples(spec) if row.keywords]


def others(rows: list[Example]) -> Iterator[tuple[str, str]]:
    """Keyword, and a text of a row about something else."""
    for row in rows:
        for other in rows:
            known = holds_any(" ".join(other.keywords), row.keywords) or holds_any(
                " ".join(row.keywords), other.keywords
            )
            if other.subject != row.subject and not known:
                yield from ((keyword, f"{other.asked} {other.answer}") for keyword in row.keywords)


def unrelated(rows: list[Example], texts: list[str]) -> Iterator[tuple[str, str]]:
    """Keyword, and a text that has nothing to do with it."""
    return ((keyword, text) for row in rows for keyword in row.keywords for text in texts)


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda word: word,
    "upper case": str.upper,
    "decomposed": lambda word: unicodedata.normalize("NFD", word),
    "'s": lambda word: f"{word}'s",
    "plural s": lambda word: f"{word}s",
    "without marks": lambda word: "".join(
        letter for letter in unicodedata.normalize("NFD", word) if not unicodedata.combining(letter)
    ),
    "case ending (-ban)": lambda word: f"{word}ban",
    "case ending (-issa)": lambda word: f"{word}issa",
    "-ian": lambda word: f"{word}ian",
    "first part of a compound": lambda word: f"{word}roman",
    "hyphenated": lambda word: f"{word[: len(word) // 2]}-{word[len(word) // 2 :]}",
    "spelled out": " ".join,
    "in another name (-son)": lambda word: f"{word}son",
    "within a word": lambda word: f"x{word}",
}


def main(listed: bool) -> None:
    """Print both tables."""
    data = {name: rows_of(name) for name in SPLITS}
    texts = {name: [f"{row.asked} {row.answer}" for row in rows] for name, rows in data.items()}
    refusals = list(load_refusals())
    print(f"| keyword, text | pairs | {' | '.join(MODES)} |\n|---|---|{'---|' * len(MODES)}")
    for name, rows in data.items():
        (other,) = set(data) - {name}
        for what, pairs in (
            (f"{name}, other rows", list(others(rows))),
            (f"{name}, rows of {other}", list(unrelated(rows, texts[other]))),
            (f"{name}, refusals", list(unrelated(rows, refusals))),
        ):
            found = {mode: {pair for pair in pairs if holds_any(pair[1], [pair[0]], mode)} for mode in MODES}
            print(f"| {what} | {len(pairs)} | {' | '.join(str(len(found[mode])) for mode in MODES)} |")
            for (_, fewer), (looser, more) in pairwise(found.items()) if listed else ():
                for keyword, text in sorted(more - fewer)[:40]:
                    print(
                        f"    {looser}: {keyword!r} in {[text[slice(*span)] for span in find(text, [keyword], looser)]}"
                    )
    words = sorted(
        {one for rows in data.values() for row in rows for one in row.keywords if one.isalpha() and len(one) > 4}
    )
    print(f"\n| form of {len(words)} keywords | {' | '.join(MODES)} |\n|---|{'---|' * len(MODES)}")
    for form, make in FORMS.items():
        shares = (
            sum(holds_any(f"It was {make(word)} then.", [word], mode) for word in words) / len(words) for mode in MODES
        )
        print(f"| {form} | {' | '.join(f'{share:.2f}' for share in shares)} |")


if __name__ == "__main__":
    main("--list" in sys.argv)
