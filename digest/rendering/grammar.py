"""What MJML and the HTML of mails consist of: tags, what may stand in what, attributes and the kind of their values.

Owns the tables that the linter asks (lint.py), as the MJML 4 documentation gives them, less what our compiler lacks
(mj-html-attributes, mj-include, an icon's place) and what mails must not have (web fonts, a preview text in white).
"""

from __future__ import annotations

_SIDES = ("", "-top", "-right", "-bottom", "-left")
_FONT = "font-family:text font-size:px font-style:text font-weight:text"
_LINKED = "href:text name:text rel:text target:text"
_PADDING = " ".join(f"padding{side}:{'lengths' if not side else 'length'}" for side in _SIDES)
_BORDER = " ".join(f"border{side}:text" for side in _SIDES)
_BACKGROUND = (
    "background-color:colour background-url:text background-repeat:repeat|no-repeat background-size:text"
    " background-position:text background-position-x:text background-position-y:text"
)
_LEFT_RIGHT, _UP_DOWN, _DIRECTION = "left|center|right", "top|middle|bottom", "ltr|rtl"
_HOLDER = f"{_PADDING} container-background-color:colour"
_TYPE = "letter-spacing:spacing line-height:height text-decoration:text text-transform:text"
_SECTION = (
    f"{_BACKGROUND} {_BORDER} {_PADDING} border-radius:text direction:{_DIRECTION} full-width:full-width|false"
    f" text-align:{_LEFT_RIGHT} text-padding:lengths"
)
_ICONS = (
    f"icon-align:{_UP_DOWN} icon-width:length icon-height:length icon-wrapped-url:text icon-wrapped-alt:text"
    " icon-unwrapped-url:text icon-unwrapped-alt:text icon-position:left|right"
)

_ATTRIBUTES = {
    "mjml": f"lang:text dir:{_DIRECTION}|auto owa:desktop",
    "mj-head": "", "mj-attributes": "", "mj-title": "",
    "mj-breakpoint": "width:px",
    "mj-style": "inline:inline",
    "mj-raw": "",
    "mj-body": "width:px background-color:colour",
    "mj-section": _SECTION,
    "mj-wrapper": _SECTION,
    "mj-column": f"background-color:colour {_BORDER} border-radius:lengths direction:{_DIRECTION} {_PADDING}"
                 f" inner-background-color:colour {_BORDER.replace('border', 'inner-border')}"
                 f" inner-border-radius:lengths vertical-align:{_UP_DOWN} width:length",
    "mj-group": f"background-color:colour direction:{_DIRECTION} vertical-align:{_UP_DOWN} width:length",
    "mj-hero": f"mode:fixed-height|fluid-height height:length background-url:text background-width:length"
               f" background-height:length background-position:text background-color:colour border-radius:text"
               f" container-background-color:colour inner-background-color:colour {_PADDING}"
               f" {_PADDING.replace('padding', 'inner-padding')} vertical-align:{_UP_DOWN}",
    "mj-text": f"align:{_LEFT_RIGHT}|justify background-color:colour color:colour {_FONT} {_TYPE} {_HOLDER}"
               f" height:length vertical-align:{_UP_DOWN}",
    "mj-button": f"align:{_LEFT_RIGHT} background-color:colour {_BORDER} border-radius:text color:colour"
                 f" {_FONT} {_TYPE}"
                 f" {_HOLDER} {_LINKED} height:length inner-padding:lengths title:text text-align:{_LEFT_RIGHT}"
                 f" vertical-align:{_UP_DOWN} width:length",
    "mj-image": f"{_LINKED} alt:text src:text srcset:text sizes:text title:text usemap:text align:{_LEFT_RIGHT}"
                f" {_BORDER}"
                f" border-radius:lengths {_HOLDER} fluid-on-mobile:true|false width:px height:height"
                f" max-height:length"
                f" font-size:px",
    "mj-divider": f"border-color:colour border-style:text border-width:px {_HOLDER} width:length align:{_LEFT_RIGHT}",
    "mj-spacer": f"{_BORDER} {_HOLDER} height:length",
    "mj-table": f"align:{_LEFT_RIGHT} border:text cellpadding:number cellspacing:number color:colour {_FONT}"
                f" line-height:height"
                f" {_HOLDER} role:none|presentation table-layout:auto|fixed|initial|inherit vertical-align:{_UP_DOWN}"
                f" width:length|auto",
    "mj-social": f"align:{_LEFT_RIGHT} border-radius:length color:colour {_FONT} icon-size:length icon-height:length"
                 f" icon-padding:lengths inner-padding:lengths line-height:height mode:horizontal|vertical {_HOLDER}"
                 f" table-layout:auto|fixed text-padding:lengths text-decoration:text vertical-align:{_UP_DOWN}",
    "mj-social-element": f"{_LINKED} align:{_LEFT_RIGHT} background-color:colour color:colour border-radius:px"
                         f" {_FONT}"
                         f" icon-size:length icon-height:length icon-padding:lengths line-height:height"
                         f" {_PADDING} alt:text"
                         f" src:text srcset:text sizes:text title:text text-padding:lengths text-decoration:text"
                         f" vertical-align:{_UP_DOWN}",
    "mj-navbar": f"align:{_LEFT_RIGHT} base-url:text hamburger:hamburger ico-align:{_LEFT_RIGHT} ico-open:text"
                 f" ico-close:text ico-color:colour ico-font-size:length ico-font-family:text ico-text-transform:text"
                 f" {_PADDING.replace('padding', 'ico-padding')} {_PADDING} ico-text-decoration:text"
                 f" ico-line-height:height",
    "mj-navbar-link": f"{_LINKED} color:colour {_FONT} {_TYPE} {_PADDING}",
    "mj-accordion": f"border:text font-family:text {_ICONS} {_HOLDER}",
    "mj-accordion-element": f"background-color:colour border:text font-family:text {_ICONS}",
    "mj-accordion-title": f"background-color:colour color:colour {_FONT} {_PADDING}",
    "mj-accordion-text": f"background-color:colour color:colour {_FONT} letter-spacing:spacing line-height:height"
                         f" {_PADDING}",
    "mj-carousel": f"align:{_LEFT_RIGHT} border-radius:lengths {_HOLDER} icon-width:length left-icon:text"
                   f" right-icon:text"
                   f" thumbnails:visible|hidden|supported tb-border:text tb-border-radius:length"
                   f" tb-hover-border-color:colour tb-selected-border-color:colour tb-width:length",
    "mj-carousel-image": "alt:text href:text rel:text target:text title:text src:text thumbnails-src:text"
                         " border-radius:lengths tb-border:text tb-border-radius:lengths",
}  # fmt: skip

#: Tag → attribute → kind of value: ``text``, ``px``, ``length``, ``lengths``, ``colour``, ``number``, ``height``,
#: ``spacing``, or the words there are.
ATTRIBUTES: dict[str, dict[str, str]] = {
    tag: {name: kind for name, _, kind in (entry.partition(":") for entry in text.split())}
    for tag, text in _ATTRIBUTES.items()
}
for _tag in ATTRIBUTES.keys() - {"mjml", "mj-head", "mj-attributes", "mj-title", "mj-style", "mj-raw", "mj-breakpoint"}:
    ATTRIBUTES[_tag] |= {"css-class": "text", "mj-class": "text"}

_IN_COLUMN = {
    "mj-accordion", "mj-button", "mj-carousel", "mj-divider", "mj-image", "mj-navbar", "mj-raw", "mj-social",
    "mj-spacer", "mj-table", "mj-text",
}  # fmt: skip
#: Which tags may stand in which.
CHILDREN: dict[str, set[str]] = {
    "": {"mjml"},
    "mjml": {"mj-head", "mj-body"},
    "mj-head": {"mj-attributes", "mj-breakpoint", "mj-style", "mj-title", "mj-raw"},
    "mj-body": {"mj-raw", "mj-section", "mj-wrapper", "mj-hero"},
    "mj-wrapper": {"mj-hero", "mj-raw", "mj-section"},
    "mj-section": {"mj-column", "mj-group", "mj-raw"},
    "mj-group": {"mj-column", "mj-raw"},
    "mj-column": _IN_COLUMN,
    "mj-hero": _IN_COLUMN,
    "mj-accordion": {"mj-accordion-element", "mj-raw"},
    "mj-accordion-element": {"mj-accordion-title", "mj-accordion-text", "mj-raw"},
    "mj-carousel": {"mj-carousel-image"},
    "mj-navbar": {"mj-navbar-link", "mj-raw"},
    "mj-social": {"mj-social-element", "mj-raw"},
}
#: Tags that hold HTML and text.
HOLDS_HTML = frozenset({
    "mj-raw", "mj-text", "mj-button", "mj-table", "mj-social-element", "mj-navbar-link", "mj-accordion-title",
    "mj-accordion-text", "mj-title",
})  # fmt: skip
#: What other MJML has and this does not, and what to do instead.
ABSENT = {
    "mj-include": "is not supported; put the text in this file",
    "mj-html-attributes": "is not supported; write the attributes where they belong",
    "mj-font": "loads a font from another server; name fonts that readers have",
    "mj-preview": "writes white text, which spam filters count; print {{ preheader }} in a hidden element of your own",
    "mj-selector": "is not supported; write the attributes where they belong",
}

_GLOBAL = "class dir hidden id lang role style tabindex title xmlns xmlns:v xmlns:o"
_BOX = "align valign bgcolor width height background"
_HTML = {
    **dict.fromkeys(("a",), "href name rel target type download hreflang"),
    **dict.fromkeys(("p", "h1", "h2", "h3", "h4", "h5", "h6", "div", "center"), "align width bgcolor"),
    "hr": "align width size noshade", "blockquote": "cite",
    **dict.fromkeys(("td", "th"), f"{_BOX} colspan rowspan nowrap scope headers abbr border"),
    **dict.fromkeys(("tr", "tbody", "thead", "tfoot", "col", "colgroup"), f"{_BOX} span"),
    "table": f"{_BOX} border cellpadding cellspacing summary",
    "img": "src alt width height border align hspace vspace srcset sizes loading decoding usemap ismap",
    "font": "color face size",
    "ol": "start type reversed", "ul": "type", "li": "value type",
    "meta": "name content http-equiv charset property",
    "time": "datetime", "caption": "align", "br": "clear",
    **dict.fromkeys((
        "span", "b", "strong", "i", "em", "u", "s", "small", "big", "sub", "sup", "bdi", "bdo", "abbr", "cite",
        "code", "pre", "q", "mark", "del", "ins", "dl", "dt", "dd", "figure", "figcaption", "address",
        "article", "section", "header", "footer", "main", "nav", "aside", "strike", "wbr", "title", "tt", "kbd", "var",
    ), ""),
}  # fmt: skip
#: HTML tag → its own attributes besides those that all have.
HTML: dict[str, frozenset[str]] = {tag: frozenset(names.split()) for tag, names in _HTML.items()}
HTML_GLOBAL = frozenset(_GLOBAL.split())
#: Tags without an end.
EMPTY = frozenset({"br", "hr", "img", "meta", "col", "wbr"})
#: What mail programs throw away, or a whole mail for.
FORBIDDEN = frozenset({
    "script", "iframe", "object", "embed", "form", "input", "button", "select", "textarea", "svg", "math", "link",
    "base", "video", "audio", "canvas", "applet", "frame", "frameset",
})  # fmt: skip
