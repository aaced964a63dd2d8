"""Numbers as patterns: one value in every layout in which it is written."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import regex

from expunge.data.text import SPACED

_DATE_DOTS = regex.compile(
    r"(?<![\d.,])\d{1,2}\.\d{1,2}\.\d{2,4}(?!\d|[.,]\d)|(?<![\d.,])\d{4}\.\d{1,2}\.\d{1,2}(?!\d|[.,]\d)"
)
_LIST = regex.compile(r"(?<![\d.,])\d+(?:,\d+){2,}(?!\d|[.,]\d)")
_GROUPED = regex.compile(r"\d{1,3}(?:,\d{3})+|\d{1,3}(?:,\d{2})*,\d{3}|\d{1,3}(?:\.\d{3})+|\d{1,3}(?:[ ']\d{3})+|\d+")
_BEFORE = rf"(?<!\d[.,']|{SPACED})"
_NO_SIGN = r"(?<!(?:^|[\s(\[:=])-)"
_AFTER = rf"(?!\d|[.,]\d|[{SPACED}--[\p{{Script=Hangul}}]])"
_FREE = r"[\s().\-/]{0,3}"
_FEWEST = 5
"""Digits from which on a number is found in groups of any size; fewer could be several numbers."""
_PHONE = 7


@lru_cache(maxsize=1024)
def prepared(text: str) -> str:
    """A folded text of the same length in which a dot or comma between digits is always part of one number."""
    text = _DATE_DOTS.sub(lambda found: found.group().replace(".", "/"), text)
    found: str = _LIST.sub(lambda list_: _list(list_.group()), text)
    return found


def _list(numbers: str) -> str:
    return numbers if _GROUPED.fullmatch(numbers) else numbers.replace(",", ";")


def number_pattern(number: str, *, ordinal: bool) -> str:
    """A pattern for a number as a whole, in any layout; its sign counts.

    Args:
        number: folded, as it was written.
        ordinal: whether English ordinals of it are found too.
    """
    negative, digits = number.startswith("-"), number.lstrip("-+")
    bodies = [_body(whole, part) for whole, part in _readings(digits)] or [regex.escape(digits)]
    before = rf"(?<!{SPACED})-" if negative else _BEFORE + _NO_SIGN
    return f"(?V1){before}(?:{'|'.join(bodies)}){'(?:st|nd|rd|th)?' if ordinal else ''}{_AFTER}"


def _readings(digits: str) -> list[tuple[str, str]]:
    """Whole part and decimals of every number that may be meant: `1.234` is two."""
    found = []
    if _GROUPED.fullmatch(digits):
        found.append((regex.sub(r"\D", "", digits), ""))
    if (match := regex.fullmatch(r"(.+)[.,](\d+)", digits)) and _GROUPED.fullmatch(match[1]):
        comma = digits[len(match[1])]
        if comma not in match[1] and not (found and (regex.search(r"\D", match[1]) or match[2] == "000")):
            found.append((regex.sub(r"\D", "", match[1]), match[2]))
    return found


def _body(whole: str, decimals: str) -> str:
    layouts = [whole]
    if len(whole) > 3 and whole[0] != "0":
        head = len(whole) % 3 or 3
        groups = [whole[:head], *(whole[place : place + 3] for place in range(head, len(whole), 3))]
        layouts += [sep.join(groups) for sep in (",", r"\.", r"\s", "'")]
    if len(whole) > 5:
        layouts.append(",".join([*regex.findall(r"\d{1,2}(?=(?:\d\d)*$)", whole[:-3]), whole[-3:]]))
    decimals = decimals.rstrip("0")
    return f"(?:{'|'.join(layouts)})" + (f"[.,]{decimals}0*" if decimals else r"(?:[.,]0{1,2})?")


def as_code(text: str) -> str | None:
    """A pattern for a telephone or account number, in groups of any size; None if the text is not one."""
    digits, letters = regex.sub(r"\D", "", text), regex.sub(r"[\s().\-/+]", "", text)
    if regex.search(r"[a-z]", letters):
        groups = regex.split(r"[\s.\-/]+", text)
        mixed = all(regex.fullmatch(r"[a-z]{1,3}|[a-z0-9]*\d[a-z0-9]*", one) for one in groups)
        return _in_groups([letters]) if mixed and len(digits) >= _FEWEST else None
    groups = regex.findall(r"\d+", text)
    one_number = regex.match(r"-|\d+[.]\d+$|\d{1,3}(?:\.\d{3})+$", text)
    if digits != letters or one_number or len(digits) < (_FEWEST if len(groups) == 1 else _PHONE):
        return None
    variants = [digits]
    if len(groups) > 1 and (text.startswith("+") or digits.startswith("00")) and len(groups[0].lstrip("0")) <= 3:
        variants.append("0?" + digits.removeprefix(groups[0]).lstrip("0"))
    if digits.startswith("0"):
        variants.append(digits.lstrip("0"))
    return _in_groups([one for one in variants if one == digits or len(one) >= _PHONE])


def _in_groups(codes: Sequence[str]) -> str:
    patterns = (_FREE.join(regex.findall(r"\w\??", code)) for code in codes)
    return rf"(?V1)(?<!{SPACED}|\d[.,])(?:{'|'.join(patterns)})(?!{SPACED}|[.,]\d)"
