"""Articles in: due sources are fetched, cleaned and stored. The face of the room.

refreshing   due sources → fetch → clean → store, one report a source
collapsing   near-duplicates → stories; an editor splits and merges them
sample       the demo's articles, dated so that the newest are from today
"""

from digest.ingest.collapsing import collapse, merge, split
from digest.ingest.refreshing import SourceReport, add_source, check_source, refresh
from digest.ingest.sample import write_sample

__all__ = ["SourceReport", "add_source", "check_source", "collapse", "merge", "refresh", "split", "write_sample"]
