"""The installation: `init`, `demo`, `serve` `web` `worker` `capture`, `brand …`, `config …`, `db …`."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from digest.cli.common import FOLDER, Column, Door, Exit, Output, json_option, pass_door, say
from digest.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from digest.config import Settings

# ----------------------------------------------------------------------------- init, demo


@click.command("init")
@click.option("--data-dir", type=FOLDER, metavar="D", help="Where the database file goes. Default: the setting.")
@json_option
@pass_door
def init(door: Door, data_dir: Path | None, out: Output) -> None:
    """Make the data folder and the database, or bring them up to date. Twice is the same as once."""
    from digest.bootstrap import build, upgrade
    from digest.catalogue import ensure_publication

    file = _settings_file(door)
    if data_dir is not None:
        _keep_data_dir(door, file, data_dir.absolute())
    settings = door.settings({"data_dir": str(data_dir)} if data_dir is not None else None)
    app = build(settings, check_schema=False)
    try:
        upgrade(app.db)
        with app.db.transaction() as session:
            ensure_publication(session)
        app.keys  # noqa: B018 — made here and once
    finally:
        app.close()
    database = settings.shown()["database"]["url"]
    out.record({"database": database, "config": str(file) if file.is_file() else None, "setup_url": None})


def _settings_file(door: Door) -> Path:
    return (door.config or Path(os.environ.get("DIGEST_CONFIG") or "config/digest.toml")).absolute()


def _keep_data_dir(door: Door, file: Path, data_dir: Path) -> None:
    """Later commands must find the folder: say so in a settings file, unless there is one already."""
    if os.environ.get("DIGEST_DATA_DIR"):
        known: Path | None = Path(os.environ["DIGEST_DATA_DIR"]).absolute()
    elif file.is_file():
        known = door.settings().data_dir
    else:
        import json

        file.parent.mkdir(parents=True, exist_ok=True)
        quoted = json.dumps(str(data_dir), ensure_ascii=False)  # a basic string of TOML is one of JSON
        file.write_text(f"# All settings: config/defaults.toml.\ndata_dir = {quoted}\n", "utf-8")
        file.chmod(0o644)
        say(f"wrote {file}")
        return
    if known != data_dir:
        say(f"other commands use {known}; set data_dir or DIGEST_DATA_DIR to {data_dir} to have them use this one")


@click.command("demo")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="Where pages are served. Default: 8000, or the next that is free.",
)
@click.option("--no-serve", is_flag=True, help="Stop after the run.")
@click.option("--kill", is_flag=True, help="The proof in a minute: 2,000 mails, the worker killed ten times.")
@json_option
def demo(port: int | None, no_serve: bool, kill: bool, out: Output) -> int:
    """The whole job on the shipped sample of real articles: read, select, mail, feeds. Nothing leaves this machine."""
    from digest.demo import opened, prove

    if kill:
        proof = prove(os.environ, say)
        out.line(proof.to_json()) if out.as_json else out.text(proof.told())
        return Exit.OK if proof.holds else Exit.FAILURE
    with opened(os.environ, port) as stage:
        shown = stage.perform(say)
        out.line(shown.to_json()) if out.as_json else out.text(shown.told(serving=not no_serve))
        return Exit.OK if no_serve else stage.serve()


# ----------------------------------------------------------------------------- serve


def _listening(command: Any) -> Any:
    host = click.option("--host", metavar="H", help="Address to listen on. Default: the setting web.host.")
    port = click.option("--port", type=click.IntRange(0, 65535), metavar="N", help="Default: the setting web.port.")
    return host(port(command))


@click.command("serve")
@_listening
@json_option
@pass_door
def serve(door: Door, host: str | None, port: int | None, out: Output) -> int:
    """Serve pages and feeds and do the work: all that one machine needs. Until Ctrl-C."""
    with door.app() as app:
        settings = app.settings
    from digest.serve import serve as serve_both

    where = host or settings.web.host, settings.web.port if port is None else port
    _announce(out, "serving", *where, settings)
    return serve_both(settings, *where)


@click.command("web")
@_listening
@json_option
@pass_door
def web(door: Door, host: str | None, port: int | None, out: Output) -> None:
    """Serve pages and feeds alone. Until Ctrl-C."""
    with door.app() as app:
        from digest.web.app import serve

        where = host or app.settings.web.host, app.settings.web.port if port is None else port
        _announce(out, "serving", *where, app.settings)
        serve(app, *where)


@click.command("worker")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that share the work, one a core; on SQLite there can be one.",
)
@json_option
@pass_door
def worker(door: Door, processes: int, out: Output) -> int:
    """Do the work alone: read sources, open editions, send. Until Ctrl-C.

    On PostgreSQL any number of these, on any number of machines, share it.
    """
    with door.app() as app:
        settings, live, sqlite = app.settings, app.live, app.db.is_sqlite
        app.signer  # noqa: B018 — a key that cannot sign is said before anything else
    if sqlite and processes > 1:
        raise UsageError("SQLite takes one worker process; for more, move to PostgreSQL (setting database.url)")
    from digest.serve import workers

    out.record({"working": True, "live": live})
    return workers(settings, processes)


def _announce(out: Output, what: str, host: str, port: int, settings: Settings) -> None:
    shown = f"[{host}]" if ":" in host else host
    out.record({what: f"http://{shown}:{port}/", "public_url": settings.public_url})


@click.command("capture")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="P", help="Default: the setting capture.port; 0 takes a free one."
)
@json_option
@pass_door
def capture(door: Door, port: int | None, out: Output) -> None:
    """Run the capture server by itself: any mail sent to it is kept to be looked at. Until Ctrl-C."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with door.app() as app, app.capturing(port) as relay:
        out.record({"host": relay.host, "port": relay.port})
        while not stop.wait(0.5):
            pass


# ----------------------------------------------------------------------------- brand


@click.group()
def brand() -> None:
    """The publication: its name, colours, postal address …"""


@brand.command("show")
@json_option
@pass_door
def brand_show(door: Door, out: Output) -> None:
    """Show what readers see of the publication."""
    with door.app() as app:
        out.record(_brand(app))


@brand.command("set")
@click.argument("values", nargs=-1, required=True, metavar="KEY=VALUE...")
@json_option
@pass_door
def brand_set(door: Door, values: tuple[str, ...], out: Output) -> None:
    """Set what readers see of the publication: one KEY=VALUE or more."""
    from digest.catalogue import set_brand

    pairs = [value.partition("=") for value in values]
    for key, equals, _ in pairs:
        if not equals:
            raise UsageError(f"{key!r} says no value; write it as KEY=VALUE, such as name='The Harbour Times'")
    with door.app() as app:
        with app.db.transaction() as session:
            for key, _, value in pairs:
                set_brand(session, key.strip(), value)
        out.record(_brand(app))


def _brand(app: Any) -> dict[str, Any]:
    from digest.catalogue import publication

    with app.db.reading() as session:
        row = publication(session)
        return {
            "name": row.name or None,
            "timezone": row.timezone,
            "language": row.language,
            "accent": row.accent,
            "font": row.font,
            "site_url": row.site_url or None,
            "logo_url": row.logo_url or None,
            "logo_dark_url": row.logo_dark_url or None,
            "logo_width": row.logo_width or None,
            "postal_address": row.postal_address or None,
            "tagline": row.tagline or None,
            "footer_links": [{"label": label, "url": url} for label, url in row.footer_links],
            "social_links": [{"label": label, "url": url} for label, url in row.social_links],
            "from_name": row.from_name or None,
            "mail_domain": row.mail_domain,
        }


# ----------------------------------------------------------------------------- config


@click.group()
def config() -> None:
    """Settings of this machine."""


@config.command("show")
@json_option
@pass_door
def config_show(door: Door, out: Output) -> None:
    """Show every setting as it holds now, and the variable that would change it."""
    from digest.config import names, variable

    tree = door.settings().shown()
    rows = [{"setting": name, "value": _at(tree, name), "variable": variable(name)} for name in names()]
    out.rows(rows, Column("setting", "setting", whole=True), "value", Column("variable", "variable", whole=True))


def _at(tree: Any, name: str) -> Any:
    for key in name.split("."):
        tree = tree[key]
    return tree


@config.command("check")
@json_option
@pass_door
def config_check(door: Door, out: Output) -> int:
    """Check the settings: all problems at once."""
    try:
        from digest.delivery.dkim import read_keys

        settings = door.settings()
        settings.all_relays()  # reads the password file too
        read_keys(settings.dkim_keys())
    except ConfigError as e:
        if not out.as_json:
            raise
        out.line({"ok": False, "problems": e.problems})
        for problem in e.problems:
            say(f"digest: {problem}")
        return Exit.CONFIGURATION
    out.record({"ok": True, "problems": []})
    return Exit.OK


# ----------------------------------------------------------------------------- db


@click.group()
def db() -> None:
    """The database's schema."""


@db.command("upgrade")
@json_option
@pass_door
def db_upgrade(door: Door, out: Output) -> None:
    """Bring the schema up to this program. Does nothing when it is."""
    from digest.bootstrap import upgrade
    from digest.db import head_revision

    with _any_schema(door) as app:
        out.record({"revision": upgrade(app.db), "head": head_revision()})


@db.command("check")
@json_option
@pass_door
def db_check(door: Door, out: Output) -> int:
    """Compare the schema with the one this program wants; 5 where they differ."""
    from digest import jobs
    from digest.db import current_revision, head_revision

    with _any_schema(door) as app:
        revision, head = current_revision(app.db), head_revision()
        queue_behind = revision == head and jobs.behind(app.db)
    out.record({"revision": revision, "head": head})
    if queue_behind:
        say(jobs.BEHIND)
        return Exit.SCHEMA_BEHIND
    if revision == head:
        return Exit.OK
    say(f"the database is at revision {revision or 'none'}, this program wants {head}; run `digest db upgrade`")
    return Exit.SCHEMA_BEHIND


def _any_schema(door: Door) -> Any:
    from contextlib import closing

    from digest.bootstrap import build

    return closing(build(door.settings(), check_schema=False))


COMMANDS = (init, demo, serve, web, worker, capture, brand, config, db)
