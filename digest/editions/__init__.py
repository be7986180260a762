"""Editions: from a schedule that strikes to an edition that is out, and what is needed to say so beforehand.

* `Editor`     open → compose → release → finish (the heart)
* `setup`      digests as an admin writes them: checked before they are kept
* `marks`      articles that editors pin or keep out
* `topics`     hidden, renamed, merged: readers follow
* `preview`    the next edition exactly as it would go out; changes nothing
"""

from digest.editions.editor import Editor
from digest.editions.marks import exclude_article, pin_article, unmark_article
from digest.editions.preview import Preview, preview
from digest.editions.setup import DigestFields, Setup
from digest.editions.topics import hide_topic, merge_topics, rename_topic
from digest.selection import Wishes

__all__ = [
    "DigestFields", "Editor", "Preview", "Setup", "Wishes", "exclude_article", "hide_topic", "merge_topics",
    "pin_article", "preview", "rename_topic", "unmark_article",
]  # fmt: skip
