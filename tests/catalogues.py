"""The texts that translators get, and the catalogues they give back.

``python -m tests.catalogues`` (`./run messages`) brings the catalogues up to date.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "templates" / "locale"
_KEYWORDS = {"phrase": None, "counted": (1, 2), "_": None, "gettext": None, "ngettext": (1, 2)}
_OPTIONS = {"trimmed": "true", "newstyle_gettext": "true"}


def wanted() -> Catalog:
    """Every text that is marked for translation, in the order of the files."""
    catalogue = Catalog()
    for path, method in _files():
        for line, text, comments, context in extract_from_file(method, path, _KEYWORDS, ("i18n:",), dict(_OPTIONS)):
            where = [(str(path.relative_to(ROOT)), line)]
            catalogue.add(text, locations=where, auto_comments=comments, context=context)
    return catalogue


def _files() -> Iterator[tuple[Path, str]]:
    yield ROOT / "digest" / "rendering" / "phrases.py", "python"
    for path in sorted((ROOT / "digest" / "web").glob("*.py")):
        yield path, "python"
    for folder in ("email", "system", "web/public"):
        for path in sorted((ROOT / "templates" / folder).rglob("*")):
            if path.suffix in (".html", ".txt", ".mjml"):
                yield path, "jinja2"


def read(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, abort_invalid=True)


def update(path: Path) -> None:
    """Add what is new (untranslated), drop what is no longer said, keep the rest."""
    catalogue = read(path)
    catalogue.update(wanted(), no_fuzzy_matching=True, update_header_comment=False, update_creation_date=False)
    catalogue.obsolete.clear()
    for message in catalogue:
        message.locations = []  # line numbers would change the file with every other change
    head = path.read_text("utf-8").partition("\n\n")[0]  # the header as it was; Babel's would have the time in it
    texts = io.BytesIO()
    write_po(texts, catalogue, width=0, omit_header=True)
    path.write_text(f"{head}\n\n{texts.getvalue().decode().strip()}\n", "utf-8")


if __name__ == "__main__":
    for found in sorted(FOLDER.glob("*.po")):
        update(found)
