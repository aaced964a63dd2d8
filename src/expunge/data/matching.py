r"""Does a text hold a keyword? The one place where that is decided, for every script.

- `word`: the keyword's words in order, whatever lies between them. Case, punctuation and the form in which letters
  and digits are encoded do not count; neither do Korean particles. Scripts without spaces are searched by character.
- `inflected`, the default, also finds endings, compounds that begin with the keyword, words that are hyphenated or
  spelled out letter by letter, dates in another order, and letters of longer words without their marks.
- `substring`: the above, and the keyword anywhere, also within another word or number.

A number is found only as a whole, in any layout: not 7 in 3.7 or in 1976, but 1234567 in 1,234,567. A keyword that
folding leaves empty is never found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import regex

from expunge.core.errors import UserError
from expunge.data._dates import dates_in, one_date
from expunge.data._endings import CLITICS, PARTICLES, bare, is_form, num_letters, rest_after, script_of
from expunge.data._numbers import as_code, number_pattern, prepared
from expunge.data.text import SPACED, SYMBOL, UNSPACED, fold, folded, has_content

Match = Literal["inflected", "word", "substring"]
"""How a keyword is looked for."""
DEFAULT: Match = "inflected"

_LOOSE = 5
"""Letters at which a word is found without its marks: Godel for Gödel, but not Zoe for Zoé."""
_JOINED = 7
"""Letters at which a keyword of several words is found written as one."""
_TWO_PIECES = 8
"""Letters at which a word is found in two pieces with a space between."""

_TOKEN = regex.compile(
    rf"(?V1)(?P<number>(?<!{SPACED})(?:(?<=^|[\s(\[:=])-)?\d+(?:[.,]\d+|[ ']\d{{3}}(?!\d))*(?!{SPACED}))"
    rf"|(?P<unspaced>(?:[{UNSPACED}]\p{{M}}*)+)"
    rf"|(?P<word>{SPACED}+(?:\+\+|(?<=(?<!{SPACED}){SPACED})[+#](?!{SPACED}))?)"
)
_RUN = regex.compile(rf"(?V1){SPACED}+")
_GAP = regex.compile(r"[^\p{L}\p{M}\p{N}]*")
_SPLIT = regex.compile(r"[\s\-._*\u00b7]{1,3}")
_LETTER_MARKS = regex.compile(r"\+\+|[+#](?!\w)")
_INITIALS = regex.compile(r"(?<!\p{L})(?:\p{L}\.\s?){2,}")
_CLUSTER = regex.compile(r"\X\p{M}*")
_MARK = regex.compile(r"\p{M}")
_WHOLE_SYMBOL = r"(?<!\u200d){}(?!\u200d|\p{{Emoji_Modifier}})"
_SYMBOL = regex.compile(rf"(?V1){SYMBOL}")

Span = tuple[int, int]
_Search = Callable[[str], Iterator[Span]]


def holds_any(text: str, keywords: Sequence[str], match: Match = DEFAULT) -> bool:
    """Whether a text contains any of the keywords.

    Args:
        text: any text.
        keywords: alternatives.
        match: how they are looked for.
    """
    return any(_holds(text, keyword, match) for keyword in keywords)


def find(text: str, keywords: Sequence[str], match: Match = DEFAULT) -> list[Span]:
    """Spans of the text, start and end, that hold a keyword.

    Args:
        text: any text.
        keywords: alternatives.
        match: how they are looked for.
    """
    place = folded(text)
    searches = [search for keyword in keywords for search in _searches(keyword, match)]
    return sorted({place.original(*span) for search in searches for span in search(place.text)})


def cut_at(text: str, keywords: Sequence[str], match: Match = DEFAULT) -> list[str]:
    """The text cut where it holds keywords, which are left out; one piece where it holds none."""
    pieces, last = [], 0
    for start, end in find(text, keywords, match):
        if start >= last:
            pieces.append(text[last:start])
        last = max(last, end)
    return [*pieces, text[last:]]


def check_keywords(keywords: Sequence[str], where: str) -> None:
    """Refuse keywords that could never be found.

    Args:
        keywords: of one row.
        where: file and line, for the message.

    Raises:
        UserError: a keyword of punctuation alone.
    """
    for keyword in keywords:
        if not has_content(keyword):
            raise UserError(
                f"{where}: keyword {keyword!r} has no letter, digit or symbol that could be found in an answer; "
                "remove it or write it out"
            )


@lru_cache(maxsize=65536)
def _holds(text: str, keyword: str, match: Match) -> bool:
    whole = fold(text)
    return any(next(search(whole), None) is not None for search in _searches(keyword, match))


@lru_cache(maxsize=8192)
def _searches(keyword: str, match: Match) -> tuple[_Search, ...]:
    """What to look for; all of it is looked for in a folded text."""
    if not has_content(keyword):
        return ()
    text = fold(keyword).strip()
    tokens = _tokens(prepared(_initials(text)))
    if not tokens:
        clusters = [one for one in _CLUSTER.findall(text) if _SYMBOL.match(one)]
        return (partial(_pattern, regex.compile(_WHOLE_SYMBOL.format(r"\s*".join(map(regex.escape, clusters))))),)
    found: list[_Search] = [partial(_sequence, tokens, match)]
    if code := as_code(text):
        found.append(partial(_pattern, regex.compile(code)))
    if match != "word" and (joined := _joined(text, tokens)):
        found.append(partial(_sequence, (_Token("word", joined),), match))
    if match != "word" and (wanted := one_date(text)):
        found.append(partial(_date, wanted))
    if match == "substring":
        found.append(partial(_pattern, regex.compile(r"\s+".join(map(regex.escape, text.split())))))
    return tuple(found)


class _Token(NamedTuple):
    """A word, a number or a row of characters of a script without spaces."""

    kind: str
    text: str


def _tokens(text: str) -> tuple[_Token, ...]:
    return tuple(_Token(one.lastgroup or "", one.group()) for one in _TOKEN.finditer(text))


def _initials(text: str) -> str:
    """`j. k. rowling` -> `jk rowling`, `u.s.a.` -> `usa`."""
    found: str = _INITIALS.sub(lambda some: "".join(filter(str.isalpha, some.group())) + " ", text)
    return found


def _joined(text: str, tokens: Sequence[_Token]) -> str | None:
    """A keyword of several words as one, where that could not be several others."""
    letters = "".join(token.text for token in tokens)
    if len(tokens) < 2 or not letters.isalnum() or letters.isdigit() or any(one.kind == "unspaced" for one in tokens):
        return None
    mixed = any(map(str.isdigit, letters)) and len(letters) > 1
    return letters if mixed or len(letters) >= _JOINED or not any(map(str.isspace, text)) else None


def _pattern(pattern: regex.Pattern[str], text: str) -> Iterator[Span]:
    return (found.span() for found in pattern.finditer(text))


def _date(wanted: Sequence[object], text: str) -> Iterator[Span]:
    return (span for span, readings in dates_in(text) if any(one.says(date) for one in readings for date in wanted))  # type: ignore[arg-type]


class _Text(NamedTuple):
    """A folded text, and where its words are."""

    text: str
    runs: dict[int, int]
    """Start -> end of every row of letters, marks and digits of scripts with spaces."""


@lru_cache(maxsize=1024)
def _laid_out(text: str) -> _Text:
    return _Text(prepared(text), {run.start(): run.end() for run in _RUN.finditer(text)})


def _sequence(tokens: Sequence[_Token], match: Match, text: str) -> Iterator[Span]:
    """Spans that hold the tokens one after another."""
    place = _laid_out(text)
    total = sum(num_letters(token.text) for token in tokens)
    for start in _starts(tokens[0], match, place):
        end: int | None = start
        for number, token in enumerate(tokens):
            here = start if number == 0 else _next(place, end, tokens[number - 1], token)
            end = None if here is None else _end(token, here, match, place, total, len(tokens) == 1)
            if end is None:
                break
        if end is not None:
            yield start, end


def _starts(token: _Token, match: Match, place: _Text) -> Iterator[int]:
    """Where a token could start."""
    if token.kind == "unspaced":
        return (start for start, letter in enumerate(place.text) if letter == token.text[0])
    if token.kind == "number":
        wanted = _number(token.text, match)
        return (found.start() for found in wanted.finditer(place.text))
    clitics = match != "word" and script_of(token.text) in CLITICS
    letter = bare(token.text)[0]
    return (start for start in place.runs if clitics or bare(place.text[start])[0] == letter)


def _next(place: _Text, end: int | None, last: _Token, token: _Token) -> int | None:
    """Where the next token must start."""
    gap = _GAP.match(place.text, end or 0)
    assert gap is not None
    start = gap.end()
    if token.kind == "number" and token.text.startswith("-") and gap.group().endswith("-"):
        start -= 1
    return start if gap.group() or "unspaced" in (last.kind, token.kind) else None


@lru_cache(maxsize=8192)
def _number(text: str, match: Match) -> regex.Pattern[str]:
    return regex.compile(number_pattern(text, ordinal=match != "word"))


def _end(token: _Token, start: int, match: Match, place: _Text, total: int, whole: bool) -> int | None:
    """End of the token that starts here; None if none does."""
    if token.kind == "number":
        found = _number(token.text, match).match(place.text, start)
        return found.end() if found else None
    if token.kind == "unspaced":
        return _unspaced_end(token.text, start, place.text, spaces=match != "word")
    end = place.runs.get(start)
    if end is None:
        return None
    return _word_end(token.text, start, end, match, place, total, whole)


def _unspaced_end(word: str, start: int, text: str, spaces: bool) -> int | None:
    for number, cluster in enumerate(_CLUSTER.findall(word)):
        while spaces and number and text[start : start + 1] in (" ", "\n", "\u30fb", "\u00b7", "\u2027"):
            start += 1
        if not text.startswith(cluster, start):
            return None
        start += len(cluster)
        if _MARK.match(text, start):
            return None
    return start


def _word_end(word: str, start: int, end: int, match: Match, place: _Text, total: int, whole: bool) -> int | None:
    text = place.text
    base = word.rstrip("+#")
    run = text[start:end]
    if marks := word[len(base) :]:
        follows = text.startswith(marks, end) and not ("#" in marks and text.startswith("#", end + 1))
        return end + len(marks) if run == base and follows else None
    if len(base) == 1 and _LETTER_MARKS.match(text, end):
        return None
    if match == "word":
        rest = rest_after(base, run, loose=False)
        korean = rest in PARTICLES and (script_of(base) == "Hangul" or script_of(run) == "Hangul")
        return end if rest == "" or korean else _split_end(base, start, end, False, place, dotted_only=True)
    loose = total >= _LOOSE
    if is_form(base, run, loose, whole):
        return end
    return _split_end(base, start, end, loose, place)


def _split_end(base: str, start: int, end: int, loose: bool, place: _Text, dotted_only: bool = False) -> int | None:
    """Where a word ends that is hyphenated or spelled out."""
    plain, letters = bare(base), bare(place.text[start:end])
    pieces, gaps = [letters], []
    while len(letters) < len(plain) and plain.startswith(letters):
        gap = _SPLIT.match(place.text, end)
        if gap is None or gap.end() not in place.runs:
            return None
        pieces.append(bare(place.text[gap.end() : place.runs[gap.end()]]))
        gaps.append(gap.group())
        letters, end = letters + pieces[-1], place.runs[gap.end()]
    if not gaps or not letters.startswith(plain):
        return None
    if dotted_only and not (
        letters == plain and all(num_letters(one) == 1 for one in pieces) and all("." in one for one in gaps)
    ):
        return None
    hyphens = all(len(gap.strip()) == 1 and gap.strip() in "-_*\u00b7" for gap in gaps)
    ending = letters[len(plain) :]
    return (
        end
        if _one_word(plain, pieces, gaps, hyphens) and (not ending or (hyphens and is_form(plain, letters, loose)))
        else None
    )


def _one_word(word: str, pieces: Sequence[str], gaps: Sequence[str], hyphens: bool) -> bool:
    """Whether pieces with gaps between are one word: hyphenated, spelled out, a code in groups, or two long halves."""
    count = num_letters(word)
    if all(num_letters(piece) == 1 for piece in pieces):
        return count >= 3 or all("." in gap for gap in gaps)
    if any(map(str.isdigit, word)):
        return count >= 5 or hyphens
    if hyphens:
        return count >= 4
    return count >= _TWO_PIECES and len(pieces) == 2 and min(map(len, pieces)) >= 3 and gaps[0].isspace()
