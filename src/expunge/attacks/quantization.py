"""Quantization: does the published model say it again once its weights are rounded? (arXiv:2410.16454)."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from expunge.attacks._weights import copies_of
from expunge.attacks.base import Attack, AttackContext, Attempt
from expunge.core.records import Frozen
from expunge.models.quantize import Quantization, quantized


class Quantize(Attack):
    """Matrices of the decoder blocks rounded to the levels of common formats, and the plain questions asked again.

    Every expert's matrix is rounded by itself; norms, biases, routers and embeddings stay, as in common libraries.

    Steps of unlearning that are smaller than half a level are undone by the rounding. What is measured is the rounding
    itself, by our own code on any device or by a library that is named; packed kernels of a device compute the same.
    """

    class Config(Frozen):
        """Which formats."""

        formats: tuple[Quantization, ...] = Field(
            (
                Quantization(levels="int8", group=None),
                Quantization(levels="int4", group=None),
                Quantization(levels="int4", group=64),
                Quantization(levels="nf4", group=None),
            ),
            min_length=1,
            description="Levels and groups, e.g. [{levels = 'int4', group = 64}]; no group: a whole output channel, "
            "and blocks of 64 for nf4",
        )

    access = "weights"
    harms = True
    tries = ("quantization",)

    def check(self, context: AttackContext) -> None:
        """Refuse a library that is not installed."""
        for how in self.config.formats:
            how.check_library()

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """One attempt for each format."""
        for how in self.config.formats:
            context.check_time()
            with quantized(context.model, how, copies_of(context)) as covered:
                said = context.ask_directly(f"rounded to {how}")
            yield Attempt(str(how), said, covered=covered)
