"""Editions: from a schedule that strikes to an edition that is out, and what is needed to say so beforehand.

* `Editor`     open → compose → release → finish (the heart)
* `setup`      digests as an admin writes them: checked before they are kept
* `topics`     hidden, renamed, merged: readers follow
* `preview`    the next edition exactly as it would go out; changes nothing
"""

from digest.editions.editor import Editor
from digest.editions.preview import Preview, preview
from digest.editions.setup import DigestFields, Setup
from digest.editions.topics import hide_topic, merge_topics, rename_topic

__all__ = [
    "DigestFields", "Editor", "Preview", "Setup", "hide_topic", "merge_topics", "preview", "rename_topic",
]  # fmt: skip
