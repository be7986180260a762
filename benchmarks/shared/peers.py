"""What others do with the same input, called in a child of its own: nothing of ours is imported here."""

from __future__ import annotations

from lxml import etree


def iterparse(path: str) -> int:
    """lxml alone: every item's tree, built and dropped."""
    count = 0
    for _, item in etree.iterparse(path, tag="item"):
        count += 1
        item.clear()
        while item.getprevious() is not None:
            del item.getparent()[0]
    return count
