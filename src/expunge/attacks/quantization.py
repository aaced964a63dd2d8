"""Quantization: does rounding the weights bring the knowledge back? (arXiv:2410.16454)."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from expunge.attacks._weights import backup_of
from expunge.attacks.base import Attack, AttackContext, Attempt
from expunge.core.records import Frozen
from expunge.models.quantize import Quantization, quantized


class Quantize(Attack):
    """Rounds the matrices of the decoder blocks to the levels of common formats, and asks the plain questions again.

    Each expert's matrix is rounded separately; norms, biases, routers and embeddings are unchanged, as in common
    libraries. Changes by unlearning that are smaller than half a level are undone by the rounding. The attack measures
    the rounding itself, with our own code on any device or with a named library; packed kernels compute the same.
    """

    class Config(Frozen):
        """Options of the formats."""

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
            with quantized(context.model, how, backup_of(context)) as covered:
                said = context.ask_directly(f"rounded to {how}")
            yield Attempt(str(how), said, covered=covered)
