"""Articles in: due sources are fetched, cleaned and stored. The face of the room.

refreshing   due sources → fetch → clean → store, one report a source
sample       the demo's articles, dated so that the newest are from today
"""

from digest.ingest.refreshing import SourceReport, add_source, check_source, refresh
from digest.ingest.sample import write_sample

__all__ = ["SourceReport", "add_source", "check_source", "refresh", "write_sample"]
