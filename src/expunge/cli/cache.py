"""`expunge cache`: what models said, as it is kept between calls."""

from __future__ import annotations

from typing import Annotated

import typer


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete the cached answers; models stay.")] = False,
) -> None:
    """Show or delete the cached answers of models."""
    import shutil

    from expunge.cli._console import console
    from expunge.evaluate.evidence_cache import evidence_folder

    folder = evidence_folder()
    files = list(folder.glob("*.json"))
    size = sum(path.stat().st_size for path in files)
    if clear:
        shutil.rmtree(folder, ignore_errors=True)
    verb = "deleted" if clear else "kept"
    console().print(f"{folder}: {len(files)} files {verb}, {size / 1e6:.1f} MB", soft_wrap=True)
