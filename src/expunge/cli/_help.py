"""Help texts, shown as they are written."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class CommandList(TyperGroup):
    """A group of commands whose list shows the first sentence of each command's help, whole."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list; long sentences are broken between words."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, (command.help or "").split("\n\n", 1)[0]) for name, command in found if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
