"""Text of any script in the form in which it is compared: folded characters, words, numbers and symbols.

Folding is NFKC and full case folding, without format characters, and with marks apart from their letters. Marks that
writers leave out at will are dropped: Arabic and Hebrew vowels, Greek accents, Russian stress marks, the dots of ё.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import regex

UNSPACED = "".join(
    rf"\p{{Script={name}}}"
    for name in (
        *("Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan", "Javanese"),
        *("Balinese", "Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Cham"),
    )
)
"""Scripts without spaces between words, and the mark that lengthens a vowel in kana; for use in a character class."""
UNSPACED += "\u30fc"
SPACED = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]"
"""A letter, mark or digit of a script that sets spaces between words."""

_PUNCTUATION = {
    **dict.fromkeys(map(ord, "\u2019\u2018\u02bc\u00b4\u201b\u2032"), "'"),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212\u05be"), "-"),
    0x066B: ".",
    0x066C: ",",
    0x0640: None,  # tatweel, which only stretches a word
}
_LETTERS = {ord("\u06cc"): "\u064a", ord("\u0649"): "\u064a", ord("\u06a9"): "\u0643", ord("\u0131"): "i"}
"""Letters that keyboards exchange for one another: Persian and Arabic yeh and kaf, dotted and dotless i."""
_DROPPED = regex.compile(r"(?!(?<=\p{Extended_Pictographic}\S*)\u200d)[\p{Cf}\p{Variation_Selector}\u034f]")
_FREE_MARKS = regex.compile(
    r"(?<=[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Greek}]\p{M}*)\p{Mn}"
    r"|(?<=[аеиоуыэюя]\p{M}*)[\u0300\u0301]|(?<=е)\u0308|(?<=i)\u0307"
)
_HANGUL = regex.compile(r"[\uac00-\ud7a3]+")
_CLUSTER = regex.compile(r"\X")


class Folded(NamedTuple):
    """A folded text, and where it came from."""

    text: str
    starts: tuple[int, ...]
    """For each of its characters, where in the original the characters behind it start."""
    ends: tuple[int, ...]
    """And where they end."""

    def original(self, start: int, end: int) -> tuple[int, int]:
        """A non-empty span of the folded text as a span of the original."""
        return self.starts[start], self.ends[end - 1]


@lru_cache(maxsize=1024)
def fold(text: str) -> str:
    """The text as it is compared."""
    if text.isascii():
        return text.casefold()
    return "".join(piece for _, piece in _pieces(text))


def folded(text: str) -> Folded:
    """The same, with the place of every character in the original."""
    pieces, starts, ends = [], [], []
    for start, piece in _pieces(text):
        pieces.append(piece)
        starts += [start] * len(piece)
        ends.append((start, len(piece)))
    stops = [start for start, _ in ends[1:]] + [len(text)]
    return Folded(
        "".join(pieces),
        tuple(starts),
        tuple(stop for (_, count), stop in zip(ends, stops, strict=True) for _ in range(count)),
    )


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Start and folded form of every cluster; a raised digit after another digit stays apart from it."""
    last = ""
    for found in _CLUSTER.finditer(text):
        piece = _fold_cluster(found.group())
        if last.isdecimal() and piece[:1].isdecimal() and not found.group()[0].isdecimal():
            piece = "^" + piece
        last = piece[-1:] or last
        yield found.start(), piece


@lru_cache(maxsize=65536)
def _fold_cluster(cluster: str) -> str:
    composed = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", cluster.translate(_PUNCTUATION)).casefold())
    parts, last = [], 0
    for syllables in _HANGUL.finditer(composed):
        parts += [unicodedata.normalize("NFD", composed[last : syllables.start()]), syllables.group()]
        last = syllables.end()
    apart = "".join(parts) + unicodedata.normalize("NFD", composed[last:])
    kept = _FREE_MARKS.sub("", _DROPPED.sub("", apart)).translate(_LETTERS)
    return "".join(str(unicodedata.decimal(letter, letter)) for letter in kept)


SYMBOL = r"[[\p{S}\p{Emoji_Presentation}]--[\x00-\x7f\p{Sk}]]"
"""A symbol with a meaning of its own: an emoji, a sign of currency or of mathematics, but none of ASCII."""
_WORD = regex.compile(
    rf"(?V1)(?P<number>(?<!{SPACED}|\d[.,])\d+(?:[.,]\d+|[ ']\d{{3}}(?!\d))*(?!{SPACED}))"
    rf"|[{UNSPACED}]\p{{M}}*|{SPACED}+(?:\+\+|(?<=(?<!{SPACED}){SPACED})[+#](?!{SPACED}))?|{SYMBOL}\p{{M}}*"
)
_GROUPED = regex.compile(r"\d{1,3}(?:,\d{3})+|\d{1,3}(?:\.\d{3}){2,}|\d{1,3}(?: \d{3})+|\d{1,3}(?:'\d{3})+|\d+")
_SIGNED = regex.compile(r"(?:^|[\s(\[:=])-$")


class Word(NamedTuple):
    """A word, a number without its separators, a symbol, or one character of a script without spaces."""

    text: str
    start: int
    """In the folded text."""
    end: int
    is_number: bool


@lru_cache(maxsize=1024)
def _words(text: str) -> tuple[Word, ...]:
    found: list[Word] = []
    whole = fold(text)
    for one in _WORD.finditer(whole):
        if one["number"] is None:
            found.append(Word(one.group(), one.start(), one.end(), False))
        else:
            found += _numbers(one.group(), one.start(), whole)
    return tuple(found)


def _numbers(run: str, start: int, whole: str) -> Iterator[Word]:
    """A run of digits and separators as one number, or as several where they are no separators of one number."""
    body, comma, decimals = run, "", ""
    match = regex.fullmatch(r"(.*?)([.,])(\d+)", run)
    if match and not _GROUPED.fullmatch(run):
        body, comma, decimals = match.groups()
    if not _GROUPED.fullmatch(body) or (comma and comma in body):
        for part in regex.finditer(r"\d+", run):
            yield Word(part.group(), start + part.start(), start + part.end(), True)
        return
    sign = "-" if _SIGNED.search(whole, 0, start) else ""
    value = regex.sub(r"\D", "", body) + ("." + decimals if decimals else "")
    yield Word(sign + value, start - len(sign), start + len(run), True)


def words(text: str) -> list[str]:
    """Words in order, for measures of overlap.

    A number is one word without its separators (`1,234,567` -> `1234567`, `3,14` -> `3.14`) and with its minus sign;
    a character with its marks is one in scripts without spaces; apostrophes and hyphens part words.
    """
    return [word.text for word in _words(text)]


def bare_words(text: str) -> str:
    """Words with single spaces between: `Don't!` -> `don t`."""
    return " ".join(words(text))


def joined_words(text: str) -> list[str]:
    """Words in order, joined across punctuation: `U.S.` -> `us`, `don't` -> `dont`."""
    whole, found, last = fold(text), [""], None
    for word in _words(text):
        between = whole[last.end : word.start] if last else " "
        joins = last and between and not regex.search(r"\s", between) and not (last.is_number and word.is_number)
        if joins and not regex.match(rf"(?V1)[{UNSPACED}]|{SYMBOL}", last.text + word.text):
            found[-1] += word.text
        else:
            found.append(word.text)
        last = word
    return found[1:]


_CHUNK = regex.compile(rf"(?V1)[{UNSPACED}]\p{{M}}*|[[\S]--[{UNSPACED}]]+")


def chunks(text: str) -> list[str]:
    """Chunks between spaces, punctuation included; single characters in scripts without spaces."""
    return [chunk.group() for chunk in _CHUNK.finditer(fold(text))]


def first_chunks(text: str, count: int) -> str:
    """The text up to the end of its first `count` chunks."""
    place = folded(text)
    for number, chunk in enumerate(_CHUNK.finditer(place.text), start=1):
        if number == count:
            return text[: place.original(*chunk.span())[1]]
    return text


def normalise(text: str) -> str:
    """The folded text with single spaces: what says whether two texts are the same."""
    return " ".join(unicodedata.normalize("NFC", fold(text)).split())


@lru_cache(maxsize=4096)
def is_spaced(letter: str) -> bool:
    """Whether one character is a letter, mark or digit of a script that sets spaces between words."""
    return regex.match(rf"(?V1){SPACED}", letter) is not None


def has_content(text: str) -> bool:
    """Whether anything is left of a text that could be looked for."""
    return any(not unicodedata.category(word.text[0]).startswith("M") for word in _words(text))
