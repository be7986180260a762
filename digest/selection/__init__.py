"""Which stories a reader gets, and why not the others. Pure: no SQL, no clock, no rendering. The face of the room.

story     a story of the pool, limits, outcome, reasons; candidates → stories
caps      quotas, caps and places kept for sections, as sets of stories
pool      picking and explaining, over integers
"""

from digest.selection.caps import Caps
from digest.selection.pool import Pool
from digest.selection.recipe import Wishes, caps_of, changed, topics_in
from digest.selection.score import Scored, half_life, in_words, parts
from digest.selection.story import (
    MORE,
    NOTHING,
    Limits,
    Outcome,
    Reason,
    Story,
    StoryPart,
    Verdict,
    bits,
    group_stories,
)

__all__ = [
    "MORE",
    "NOTHING",
    "Caps",
    "Limits",
    "Outcome",
    "Pool",
    "Reason",
    "Scored",
    "Story",
    "StoryPart",
    "Verdict",
    "Wishes",
    "bits",
    "caps_of",
    "changed",
    "group_stories",
    "half_life",
    "in_words",
    "parts",
    "topics_in",
]
