"""Where templates/, config/ and alembic/ lie: inside an installed wheel, or beside the package in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(name: str) -> Path:
    """Return the folder called *name*: the wheel's copy, else the checkout's.

    The wheel's place is asked first: in an installed tree the package's parent is site-packages,
    where ``alembic/`` is the library.
    """
    for root in (_PACKAGE / "_shipped", _PACKAGE.parent):
        if (path := root / name).is_dir():
            return path
    raise FileNotFoundError(f"{name}/ is neither in the wheel nor beside the package")
