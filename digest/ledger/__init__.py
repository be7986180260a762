"""The ledger: editions, their pools and variants, who was given what, every attempt and its outcome.

One face for the rooms above:

* `digests`   the standing recipes and their schedules
* `editions`  clocks, opening, pools, states
* `history`   what readers have had, and the release that adds to it
* `batches`   leases, groups of answers, takeover, retry; `hotpath`: the statements of a sender's commit
* `again`     what a person settles or has sent again
* `retention` months made ahead, and what is old forgotten
* `readings`  deliveries, counts, the archive
* `events`    what was heard of mail later, and hooks' requests
* `rates`     rates that the processes of all machines keep together
* `mails`     system mails that wait, mails that the capture server caught

Reads any table; writes editions, edition_articles, variants, batches, attempts, rate_shares, delivery_events,
hook_nonces, system_mails' state and captured_mails.
"""

from digest.ledger import again, batches, digests, editions, events, history, mails, rates, readings, retention
from digest.ledger.mails import captured, captured_mail, store_captured
from digest.ledger.readings import ArchiveEntry, archive, deliveries, edition_page, edition_pages, outcome_counts

__all__ = [
    "ArchiveEntry",
    "again",
    "archive",
    "batches",
    "captured",
    "captured_mail",
    "deliveries",
    "digests",
    "edition_page",
    "edition_pages",
    "editions",
    "events",
    "history",
    "mails",
    "outcome_counts",
    "rates",
    "readings",
    "retention",
    "store_captured",
]
