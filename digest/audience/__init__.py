"""Readers: addresses, subscriptions, tastes, consent, suppression, and the tokens in their links.

One face; the parts:
    addresses.py      what is an address, and when two are the same one
    tokens.py         keys that every machine shares, and the signed links made with them
    subscriptions.py  ask, confirm, leave, look up: one reader at a time
    importing.py      CSV in, thousands of readers at a time
    exporting.py      readers out again
    suppressions.py   addresses that we may not write to, in and out

Writes subscribers, subscriptions, tastes, consent_events, suppressions, secrets, schedule_clocks that a reader is the
first to need, and the rows of system_mails that ask for a confirmation. Sends nothing: that is the sweep's.
"""

from digest.audience.addresses import Address, parse_address
from digest.audience.exporting import export, write_csv
from digest.audience.importing import ImportReport, import_csv
from digest.audience.privatefeeds import (
    close_private_feed,
    count_private_readers,
    note_private_poll,
    open_private_feed,
    private_choices,
    private_polled_today,
    private_serial,
)
from digest.audience.subscriptions import (
    Invitation,
    Offer,
    Preferences,
    Requested,
    Standing,
    add,
    confirm,
    ensure_taste,
    find,
    forget_unconfirmed,
    given_address,
    invitation,
    leave_all,
    offers,
    preferences,
    reader_id,
    resubscribe,
    show,
    subscribe,
    suspend,
    unsubscribe,
)
from digest.audience.suppressions import (
    SuppressionReport,
    erase,
    hash_away,
    import_suppressions,
    lift,
    lift_all,
    listed,
    suppress,
    suppressed_among,
    suppression,
    write_suppressions,
)
from digest.audience.tastes import follow_merge
from digest.audience.tokens import Keys, Links, Tokens, ensure_secrets

__all__ = [
    "Address",
    "ImportReport",
    "Invitation",
    "Keys",
    "Links",
    "Offer",
    "Preferences",
    "Requested",
    "Standing",
    "SuppressionReport",
    "Tokens",
    "add",
    "close_private_feed",
    "confirm",
    "count_private_readers",
    "ensure_secrets",
    "ensure_taste",
    "erase",
    "export",
    "find",
    "follow_merge",
    "forget_unconfirmed",
    "given_address",
    "hash_away",
    "import_csv",
    "import_suppressions",
    "invitation",
    "leave_all",
    "lift",
    "lift_all",
    "listed",
    "note_private_poll",
    "offers",
    "open_private_feed",
    "parse_address",
    "preferences",
    "private_choices",
    "private_polled_today",
    "private_serial",
    "reader_id",
    "resubscribe",
    "show",
    "subscribe",
    "suppress",
    "suppressed_among",
    "suppression",
    "suspend",
    "unsubscribe",
    "write_csv",
    "write_suppressions",
]
