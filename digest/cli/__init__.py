"""The ``digest`` command: one file a group of commands, `common` for what all of them share.

A door: reads options, calls the rooms, prints. Decides nothing about articles, editions or readers.
"""

from __future__ import annotations

from pathlib import Path

import rich_click as click

import digest
from digest.cli import (
    articles,
    bounces,
    digests,
    dkim,
    editions,
    feeds,
    sources,
    stories,
    subscribers,
    suppressions,
    system,
    templates,
)
from digest.cli.common import FILE, Door, Family

_PANELS = {
    "Start": ("demo", "init", "serve"),
    "Articles": ("sources", "ingest", "articles", "stories", "topics"),
    "Digests": ("digests", "preview", "tick", "run", "editions", "deliveries"),
    "Readers": ("subscribers", "suppressions", "bounces", "bounce", "feeds"),
    "Operate": ("web", "worker", "capture", "brand", "templates", "config", "dkim", "db"),
}
click.rich_click.COMMAND_GROUPS = {"digest": [{"name": n, "commands": list(c)} for n, c in _PANELS.items()]}
click.rich_click.STYLE_OPTIONS_PANEL_BOX = click.rich_click.STYLE_COMMANDS_PANEL_BOX = "SIMPLE_HEAD"
click.rich_click.MAX_WIDTH = 110


@click.group(cls=Family, name="digest", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", type=FILE, metavar="FILE", help="Settings file. Default: $DIGEST_CONFIG, else ./config/digest.toml."
)
@click.version_option(digest.__version__, "--version", prog_name="digest")
@click.pass_context
def cli(context: click.Context, config: Path | None) -> None:
    """Email digests and feeds for a news site, from one selection of its articles."""
    context.obj = Door(config)


_ROOMS = (
    system, sources, articles, stories, digests, editions, subscribers, suppressions, bounces, feeds, dkim, templates,
)  # fmt: skip
for _room in _ROOMS:
    for _command in _room.COMMANDS:
        cli.add_command(_command)


def main() -> None:
    """The entry point."""
    cli.main(prog_name="digest")
