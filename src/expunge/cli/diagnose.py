"""`expunge diagnose squeeze`: a run with a diagnostic on; its options are set as `--set diagnose.squeeze.prompts=8`."""

from __future__ import annotations

import typer

from expunge.cli.run import runner

app = typer.Typer(help="Watch what a run does to the model while it trains.", no_args_is_help=True)


@app.callback()
def diagnose() -> None:
    """Watch what a run does to the model while it trains."""


app.command(
    "squeeze",
    help="Run, and tell whether other wordings of the forgotten rise while the forget answers fall. "
    "Options of the diagnostic: --set diagnose.squeeze.prompts=8; see `expunge show recipe`.",
)(runner(diagnose={"squeeze": {}}))
