"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

MOST_SEED = 2**32 - 1
"""The largest seed that every generator takes."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of everything random.")]
RunSeed = Annotated[
    int | None,
    typer.Option(min=0, max=MOST_SEED, help="Seed of everything random. Default: the run's seed, or 0 for a model."),
]
RunTemplate = Annotated[
    str | None,
    typer.Option(help="Prompt format: chat or plain. Default: the run's format, or chat for a model."),
]
RunSettings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any option of the run, e.g. train.lr=1e-5.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Print all tables, and the traceback of an attack that fails.")
]
Target = Annotated[
    str, typer.Argument(metavar="RUN_DIR|MODEL", help="Finished run, or a model: name, folder, .gguf file or hub id.")
]
ModelName = Annotated[str | None, typer.Option(help="Embedded name, folder, .gguf file or hub id.")]
Forget = Annotated[str | None, typer.Option(help="Data to forget, e.g. people:forget or facts.jsonl.")]
Retain = Annotated[str | None, typer.Option(help="Data to preserve.")]
Neighbour = Annotated[str | None, typer.Option(help="Data similar to the forget data; measured, not trained on.")]
