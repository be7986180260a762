"""Subjects that differ from edition to edition: mail programs thread what bears the same one.

Owns the stamp, a date at the end of a subject that would not tell its edition from the one before. Rendering the
templates of a digest is sandbox.py's; which titles were used before is told by the view.
"""

from __future__ import annotations

from digest.rendering import sandbox
from digest.rendering.words import Words
from digest.types import EditionView

_TELLING = 40  # so many characters of a title tell it from another


def folded(title: str) -> str:
    """A title as it is compared: what a subject cuts off makes no difference."""
    return " ".join(title.split()).casefold()[:_TELLING]


def distinct(subject: str, lead: str, view: EditionView, words: Words) -> str:
    """*subject*, and the edition's date behind it unless it says what the edition before cannot have said.

    That is the title on top, if no other article of that title was on top then, or the date, on the first edition of
    a day. The same for all readers of a variant; at most LINE_BYTES.
    """
    said = " ".join(subject.split()).casefold()
    title = folded(lead)
    if title and title in said and title not in view.worn:
        return subject
    dates = (words.full_date(view.local_date), words.medium_date(view.local_date), view.local_date.date().isoformat())
    if view.place == 1 and any(date.casefold() in said for date in dates):
        return subject
    stamp = f" · {dates[1]}" + (f" ({view.place})" if view.place > 1 else "")
    return sandbox.one_line(subject, sandbox.LINE_BYTES - len(stamp.encode())) + stamp
