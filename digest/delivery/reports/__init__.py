"""Reports on mail that had left: bounces, complaints, replies of programs. From octets to a Report; judges nobody.

    octets ─▶ parsed ─▶ standard.py   a delivery report (RFC 3464), a complaint (RFC 5965), a receipt (RFC 8098)
                     ─▶ loose.py      what servers write that know no standard; replies of absent people
                     ─▶ notices.py    the same news as JSON, from providers and from hooks

Anybody can write such a mail: whom a report is about is what it *says*. `to`, `traces` and `links` are where proof may
be found by those who have the keys. Whatever the octets are, there is a Report; one that means nothing is `unknown`.
Owner of flufl.bounce.
"""

from digest.delivery.reports.notices import read_notices
from digest.delivery.reports.reading import LIMIT, Letter, read_letter, read_report
from digest.delivery.reports.report import Report, ReportKind

__all__ = ["LIMIT", "Letter", "Report", "ReportKind", "read_letter", "read_notices", "read_report"]
