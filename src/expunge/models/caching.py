"""What a model's cache may be used for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CachePolicy:
    """How answers are computed; whichever way, they are those of plain passes.

    Args:
        keeps: a cache is used; without one every token is read again for each new one, which is slow.
        steps_only: it is used to generate, one token at a time; answers that are given are read with their prompts.
        holes: padding may lie between tokens, so that what prompts begin with is read once for all of them.
        longest: positions that a cache must be able to hold.
        reason: why the cache is used for less than a plain transformer's.
    """

    keeps: bool
    holes: bool
    steps_only: bool = False
    longest: int = 0
    reason: str = ""

    @property
    def extends(self) -> bool:
        """Whether several tokens can be read after what the cache holds."""
        return self.keeps and not self.steps_only

    @property
    def summary(self) -> str:
        """The way in a few words, for records."""
        if not self.keeps:
            return "no cache"
        if self.steps_only:
            return "cache for generation"
        return "cache with a shared start" if self.holes else "cache for each prompt"
