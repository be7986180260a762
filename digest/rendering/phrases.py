"""What mails say by themselves, in English: the texts that translators get.

Owns the wording alone. ``{names}`` are filled in; in a counted text ``{n}`` is the number. A key is what a template
writes (``words.read_more``); the English text is what a catalogue translates
(templates/locale/LANGUAGE.po, see words.py).
`./run messages` takes what stands in ``phrase`` and ``counted`` into the catalogues.
"""

from __future__ import annotations


def phrase(text: str) -> str:
    """Mark *text* for translation."""
    return text


def counted(one: str, other: str) -> tuple[str, str]:
    """Mark a text that depends on a number: how English says it of one, and of any other."""
    return one, other


PLAIN = {
    "read_more": phrase("Read more"),
    "also": phrase("Also"),
    "by": phrase("By {authors}"),
    "and": phrase("{rest} and {last}"),
    "view_in_browser": phrase("View in browser"),
    "unsubscribe": phrase("Unsubscribe"),
    "preferences": phrase("Preferences"),
    "why": phrase("You get this mail because {address} is subscribed to {digest}."),
    "footer": phrase("About this mail"),
    "archive": phrase("In the archive"),
    "links": phrase("Links"),
    "nothing": phrase("Nothing new this time."),
    "sponsored": phrase("Sponsored"),
    "confirm_subject": phrase("Please confirm: {digest}"),
    "confirm_preheader": phrase("One click, and {digest} comes to you."),
    "confirm_title": phrase("One more step"),
    "confirm_text": phrase(
        "Somebody, most likely you, asked for {digest} to be sent to this address. Confirm it, and the next edition"
        " comes to you."
    ),
    "confirm_button": phrase("Yes, subscribe me"),
    "confirm_link_text": phrase("To confirm, open this address:"),
    "confirm_link": phrase("If the button does not work, open this address:"),
    "confirm_ignore": phrase(
        "If it was not you, do nothing: no mail will come, and the address is forgotten after 30 days."
    ),
}

COUNTED = {
    "stories": counted("1 story", "{n} stories"),
    "more": counted("and 1 more", "and {n} more"),
    "had": counted("1 story you already had was left out.", "{n} stories you already had were left out."),
}
