"""`dkim keygen` `dkim show`: keys that sign mail, and what DNS must say about them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from digest.cli.common import FILE, Column, Door, Output, choice, json_option, pass_door, say
from digest.errors import UsageError

if TYPE_CHECKING:
    from digest.delivery.dkim import Key


@click.group()
def dkim() -> None:
    """Keys that sign mail (DKIM)."""


@dkim.command("keygen")
@click.argument("selector")
@click.option("--out", "target", type=FILE, metavar="FILE", help="Where the private key goes. Default: SELECTOR.pem.")
@click.option("--kind", type=choice("ed25519", "rsa"), default="ed25519", show_default=True, help="RSA has 2048 bits.")
@json_option
@pass_door
def keygen(door: Door, selector: str, target: Path | None, kind: Any, out: Output) -> None:
    """Make a key: write its file, readable by its owner alone, and print the record for DNS."""
    from digest.delivery.dkim import checked_selector, new_key, read_key

    checked_selector(selector)
    file = (target or Path(f"{selector}.pem")).absolute()
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(new_key(kind))
    except FileExistsError:
        raise UsageError(f"{file} is there already; a key is never written over: name another file") from None
    except OSError as e:
        raise UsageError(f"{file} cannot be written: {e.strerror}") from None
    row = _row(read_key(selector, file), file, _domain(door))
    if out.as_json:
        out.line(row)
        return
    out.text(f"{row['name']}. IN TXT {zone_text(row['record'])}")
    say(f"wrote {file}")
    say(f"publish the record above, then set dkim.keys to [{row['setting']!r}]; the first key of each kind signs")


@dkim.command("show")
@json_option
@pass_door
def show(door: Door, out: Output) -> None:
    """Show the keys that are set: which of them sign, and the record DNS must hold for each."""
    from digest.delivery.dkim import Signer, read_keys

    domain, files = _domain(door), door.settings().dkim_keys()
    keys = read_keys(files)
    signing = Signer(domain, keys).keys
    rows = [{**_row(key, file, domain), "signs": key in signing} for key, (_, file) in zip(keys, files, strict=True)]
    out.rows(rows, Column("name", "name", whole=True), "kind", "signs", "record")


def _row(key: Key, file: Path, domain: str) -> dict[str, Any]:
    return {
        "selector": key.selector, "kind": key.kind, "bits": key.bits, "file": str(file),
        "name": key.name(domain), "record": key.record, "setting": f"{key.selector}={file}",
    }  # fmt: skip


def _domain(door: Door) -> str:
    """The mail domain: the database's, where there is one, else the setting's."""
    from digest.errors import DigestError

    try:
        with door.app() as app:
            return app.post.mail_domain
    except DigestError:  # a key may be made before there is a database
        return door.settings().mail_domain_for()


def zone_text(record: str) -> str:
    """A record as zone files write it: strings of at most 255 characters (RFC 1035 §3.3.14)."""
    return " ".join(f'"{record[i : i + 255]}"' for i in range(0, len(record), 255))


COMMANDS = (dkim,)
