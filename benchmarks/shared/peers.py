"""What others do with the same input, called in a child of its own: nothing of ours is imported here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment
from lxml import etree
from markupsafe import Markup
from mjml import mjml2html
from premailer import Premailer


def iterparse(path: str) -> int:
    """lxml alone: every item's tree, built and dropped."""
    count = 0
    for _, item in etree.iterparse(path, tag="item"):
        count += 1
        item.clear()
        while item.getprevious() is not None:
            del item.getparent()[0]
    return count


class Inlined:
    """Jinja, MJML and premailer, one after the other for each edition. *source*: MJML with Jinja in it."""

    def __init__(self, source: str) -> None:
        environment = Environment(autoescape=True, trim_blocks=True)
        environment.filters["fill"] = lambda text, **values: re.sub(r"{(\w+)}", lambda m: str(values[m[1]]), text)
        self._template = environment.from_string(source)

    def filled(self, values: Mapping[str, Any]) -> str:
        """The MJML of an edition."""
        fonts = {name: Markup(font) for name, font in values["font"].items()}
        return self._template.render({**values, "font": fonts})

    def render(self, values: Mapping[str, Any]) -> str:
        page = mjml2html(self.filled(values), fonts={}).replace("<!doctype", "<!DOCTYPE", 1)
        return str(
            Premailer(page, allow_network=False, cssutils_logging_level="CRITICAL").transform(pretty_print=False)
        )
