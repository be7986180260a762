"""Names of HTML elements, by what we do with them."""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Every element of HTML, past and present: in a headline only these are markup.
KNOWN = _names("""
    a abbr acronym address area article aside audio b base bdi bdo big blockquote body br button caption
    center cite code col colgroup dd del details dfn dialog div dl dt em embed fieldset figcaption figure font
    footer form frame frameset h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins kbd label legend
    li link main map mark math menu meta meter nav noscript object ol option p param picture pre progress q s
    samp script section select small source span strike strong style sub summary sup svg table tbody td
    template textarea tfoot th thead time title tr track tt u ul var video wbr
""")

#: What a body may hold.
ALLOWED = _names("""
    a abbr address article aside b bdi bdo blockquote br caption cite code col colgroup dd del details dfn div dl dt em
    figcaption figure footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark ol p pre q s samp section small
    strike strong sub summary sup table tbody td tfoot th thead time tr u ul var wbr
""")

#: Removed with what is inside. Of all others the tag goes and the text stays.
DROPPED = _names("""
    applet audio button canvas dialog embed frame frameset head iframe input math noembed noframes object option script
    select style svg template textarea title video
""")

#: Elements that a parser closes by itself, or that have no end tag: however often they open, they do not nest.
FLAT = _names("""
    p li dt dd tr td th thead tbody tfoot option colgroup col br hr img input link meta area base embed param source
    track wbr
""")

ATTRIBUTES: dict[str, set[str]] = {
    "*": {"dir", "lang"},
    "a": {"href", "title"},
    "abbr": {"title"},
    "blockquote": {"cite"},
    "img": {"src", "alt", "title", "width", "height"},
    "ol": {"start", "reversed"},
    "q": {"cite"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
    "time": {"datetime"},
}

#: Attributes that hold an address.
ADDRESSES = frozenset({("a", "href"), ("img", "src"), ("blockquote", "cite"), ("q", "cite")})


def either(names: frozenset[str]) -> str:
    """Return a regular expression for one of *names*, the longest first."""
    return "|".join(sorted(names, key=lambda n: (-len(n), n)))
