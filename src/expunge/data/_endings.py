"""Which longer or changed words are still a form of a keyword: endings by script, no dictionary.

A name must not be found in another name (Ali in Alice, Robert in Robertson, Rome in Romeo), so short words take few
endings, and only words of seven letters or more may be the first part of a compound.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import regex

from expunge.core.toml import read_toml
from expunge.data.text import fold

OPEN = 7
"""Letters at which a word may begin any longer one: `Shakespearedrama`."""
_SCRIPTS = ("Latin", "Cyrillic", "Greek", "Hangul", "Arabic", "Hebrew", "Georgian", "Ethiopic")

_TABLES = read_toml(Path(__file__).with_name("endings.toml"))


def _endings(script: str, name: str = "inflected") -> frozenset[str]:
    return frozenset(map(fold, _TABLES[script][name].split()))


_SHORT = frozenset(("s", "es"))
_DERIVED = _endings("latin", "derived")
_LONGER_DERIVED = _DERIVED | _endings("latin", "longer_derived")
_LATIN = _endings("latin") | _LONGER_DERIVED
_LATIN_VOWELS = _endings("latin", "beside_others")
_LATIN_STEM = _endings("latin", "changed")
_OTHER_NAMES = _endings("latin", "other_names")
_CYRILLIC = _endings("cyrillic")
_CYRILLIC_VOWELS = "".join(_endings("cyrillic", "vowels"))
_GREEK = _endings("greek")
_GREEK_LAST = sorted(_endings("greek", "last"), key=len, reverse=True)
_BY_SCRIPT = {"Arabic": _endings("arabic"), "Hebrew": _endings("hebrew")}
_GEORGIAN_VOWELS = _endings("georgian", "vowels")
PARTICLES = _endings("hangul", "particles")
"""What follows a Korean noun without a space."""
CLITICS = {name: regex.compile(_TABLES[name.lower()]["clitics"]) for name in ("Arabic", "Hebrew", "Ethiopic")}
_SPELLINGS = str.maketrans({"ø": "o\u0308", "æ": "a\u0308", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th"})
_LAST_LETTER = regex.compile(r"\p{L}\p{M}*\P{L}*$")
_IN_SCRIPT = {name: regex.compile(rf"\p{{Script={name}}}") for name in _SCRIPTS}
_MARK = regex.compile(r"\p{M}")
_LATIN_MARK = regex.compile(r"(?<=\p{Script=Latin}\p{M}*)\p{M}")
_FLEETING = regex.compile(r"\p{L}{2,}[оеи][кц]$")


@lru_cache(maxsize=65536)
def script_of(text: str) -> str:
    """Script of the last letter, as far as it matters here."""
    letter = _LAST_LETTER.search(text)
    return next((name for name in _SCRIPTS if letter and _IN_SCRIPT[name].match(letter.group())), "other")


@lru_cache(maxsize=65536)
def bare(text: str) -> str:
    """A word without the marks of Latin letters, other Latin letters spelled by those of English."""
    return text if text.isascii() else _LATIN_MARK.sub("", text.translate(_SPELLINGS))


def rest_after(base: str, word: str, loose: bool) -> str | None:
    """The rest of a word after the one it begins with; None if it does not begin with it.

    Args:
        base: the keyword's word, folded.
        word: one of the text, folded.
        loose: whether marks of Latin letters may be missing, and umlauts be written with an e. Other marks than those
            of the keyword never agree with it.
    """
    if word.startswith(base) and not _MARK.match(word[len(base) : len(base) + 1]):
        return word[len(base) :]
    if not loose or (base.isascii() and word.isascii()):
        return None
    base, word = base.translate(_SPELLINGS), word.translate(_SPELLINGS)
    here = there = 0
    while here < len(base):
        if word[there : there + 1] != base[here]:
            return None
        (here, mine), (there, theirs) = _marks(base, here + 1), _marks(word, there + 1)
        if mine == "\u0308" and not theirs and word[there : there + 1] == "e" != base[here : here + 1]:
            there += 1
        elif theirs == "\u0308" and not mine and base[here : here + 1] == "e" != word[there : there + 1]:
            here += 1
        elif mine and theirs and mine != theirs:
            return None
    return word[there:]


def _marks(text: str, place: int) -> tuple[int, str]:
    start = place
    while place < len(text) and "\u0300" <= text[place] <= "\u036f":
        place += 1
    return place, text[start:place]


@lru_cache(maxsize=65536)
def is_form(base: str, word: str, loose: bool, whole: bool = True) -> bool:
    """Whether a word is another one, an inflected form of it, or a compound that begins with it; both folded.

    Args:
        base: the keyword's word.
        word: one of the text.
        loose: as for `rest_after`.
        whole: whether the word is all of the keyword; beside others that are found too, more endings are sound.
    """
    script = script_of(base)
    if clitic := CLITICS.get(script):
        base = base.removeprefix("\u0627\u0644") if len(base) > 4 else base
        longest = clitic.match(word)
        if (
            len(base) >= (3 if whole else 2)
            and longest
            and any(_is_form(base, word[cut:], loose, whole) for cut in range(1, longest.end() + 1))
        ):
            return True
    return _is_form(base, word, loose, whole)


def _is_form(base: str, word: str, loose: bool, whole: bool) -> bool:
    rest, script = rest_after(base, word, loose), script_of(base)
    count = num_letters(base)
    if rest == "":
        return True
    if rest is None:
        return _has_stem(bare(base), bare(word), script, count)
    if rest.isdigit():
        return count >= 4 and not base[-1].isdigit()
    if script_of(rest) == "Hangul":
        return rest in PARTICLES or (script == "Hangul" and count >= 2)
    if script == "Latin":
        return _latin(bare(base), bare(rest), count, whole)
    if script in ("Cyrillic", "Greek"):
        known = rest in (_CYRILLIC if script == "Cyrillic" else _GREEK) or _has_stem(base, word, script, count)
        return count >= 3 and (known or count >= OPEN)
    if script in _BY_SCRIPT:
        return count >= 3 and (rest in _BY_SCRIPT[script] or count >= OPEN)
    return count >= 3 or (script == "other" and len(base) >= 4)


@lru_cache(maxsize=65536)
def num_letters(text: str) -> int:
    """Letters and digits with their marks."""
    return sum(not _MARK.match(letter) for letter in text)


def _latin(base: str, rest: str, count: int, whole: bool) -> bool:
    if not base[-1].isalpha() or count < 2:
        return False
    if rest == "s" or (count >= 3 and rest in _SHORT) or (count >= 4 and rest in _DERIVED):
        return True
    if count < (5 if whole else 4) or rest in _OTHER_NAMES or (base[-1] == "s" and rest in ("on", "en")):
        return False
    if count >= OPEN or (count >= 6 and rest == "n") or (count >= 5 and rest in _LATIN):
        return True
    doubled = rest[0] == base[-1] and rest[1:] in ("al", "el")  # Hungarian "with"
    return doubled or (not whole and (rest in _LATIN or rest in _LATIN_VOWELS))


def _has_stem(base: str, word: str, script: str, count: int) -> bool:
    """Whether the two share a stem and differ in an ending only: Москва, Москве; Warszawa, Warszawie; city, cities."""
    if script == "Cyrillic":
        stems = {base.rstrip(_CYRILLIC_VOWELS), base[:-1] if base[-1] in _CYRILLIC_VOWELS else base}
        if _FLEETING.search(base):  # Торжок, Торжке
            stems.add(base[:-2] + base[-1])
        fewest = 2 if count == 3 else 3
        return any(
            len(stem) >= fewest and word.removeprefix(stem) in _CYRILLIC and word.startswith(stem) for stem in stems
        )
    if script == "Greek":
        stem = base.removesuffix(next((one for one in _GREEK_LAST if base.endswith(one)), ""))
        return len(stem) >= 3 and word.startswith(stem) and word[len(stem) :] in _GREEK
    if script == "Latin" and base.isalpha():
        stem, last = base[:-1], base[-1]
        ending = word.removeprefix(stem)
        if not word.startswith(stem) or count < 4:
            return False
        if last == "y":
            return ending == "ies"
        if last == "e" and count >= 5:
            return ending in _LONGER_DERIVED
        return last in "ao" and count >= 6 and ending in _LATIN_STEM
    if script == "Georgian":
        return count >= 4 and base[-1] in _GEORGIAN_VOWELS and word.startswith(base[:-1])
    # Scripts of India: the sign that closes the last syllable gives way (பாரிஸ், பாரிஸில்), or one is added (লন্ডনে).
    stem = base[:-1] if _MARK.match(base[-1]) else base
    return script == "other" and len(base) >= 4 and word.startswith(stem)
