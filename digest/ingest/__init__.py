"""Articles in: due sources are fetched, cleaned and stored. The face of the room.

looking      what lies at an address, before it is trusted
refreshing   due sources → fetch → clean → store, one report a source
collapsing   near-duplicates → stories; an editor splits and merges them
sample       the demo's articles, dated so that the newest are from today
"""

from digest.ingest.collapsing import collapse, merge, split
from digest.ingest.looking import Look, find_source
from digest.ingest.refreshing import SourceReport, absolute, add_source, change_source, check_source, due, push, refresh
from digest.ingest.sample import write_sample

__all__ = [
    "Look",
    "SourceReport",
    "absolute",
    "add_source",
    "change_source",
    "check_source",
    "collapse",
    "due",
    "find_source",
    "merge",
    "push",
    "refresh",
    "split",
    "write_sample",
]
