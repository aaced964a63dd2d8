"""A provenance in which nothing depends on this machine."""

from __future__ import annotations

from expunge.core.records import Provenance


def provenance_of(command: str) -> Provenance:
    """Of a run by this command."""
    return Provenance(
        command=command,
        created="2026-08-14T09:12:33Z",
        expunge="0.1.0",
        commit=None,
        dirty=None,
        python="3.11",
        platform="Linux",
        device="cpu",
        precision="float32",
    )
