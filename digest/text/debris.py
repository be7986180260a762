"""What machines leave in a body: broken brackets, shortcodes, lazy images, tables of contents, feed credits."""

from __future__ import annotations

import re

from selectolax.lexbor import LexborHTMLParser

from digest.text.tags import KNOWN

# ----------------------------------------------------------------------------- broken brackets

# Every repetition is bounded or possessive: a megabyte of brackets must cost a megabyte's time.
# What the body is asked first begins with a bracket in both expressions: a search for one character is the fastest.
_OPENS_ODDLY = re.compile(r"<(?:[<> \n\t]|/[ \n])")
_SHUTS_ODDLY = re.compile(r">(?<=[> \n\t]>)")
_BROKEN = re.compile(r"(<[<\s]{0,8}+)(/?)(\s{0,4}+)([a-zA-Z][a-zA-Z0-9]{0,9}+)(\s{0,4}+/?)\s{0,4}+(>{1,8}+)")
_DOUBLED = re.compile(r"<(?=<([a-zA-Z][a-zA-Z0-9]{0,9}+)(?:\s[^<>]*)?>)")
_LONE = re.compile(r"(?<=[\w\"'/]>)\s*+[<>](?:\s*+[<>])*(?=\s*+(?:</?[a-zA-Z]|\Z))")


def mend(html: str) -> tuple[str, bool]:
    """Return *html* with the debris that text tools leave around tags made whole, and whether there was any.

    "< / li>>" and "<< li >< strong >" become tags again; brackets that stand alone between two tags go. Prose such as
    "a < b > c" stays as it is.
    """
    if _OPENS_ODDLY.search(html) is None and _SHUTS_ODDLY.search(html) is None:
        return html, False
    before = html
    html = _BROKEN.sub(_whole, html)
    html = _DOUBLED.sub(lambda m: "" if m[1].lower() in KNOWN else "<", html)
    html = _LONE.sub("", html)
    return html, _squeezed(html) != _squeezed(before)


def _whole(match: re.Match[str]) -> str:
    opened, slash, _, name, tail, closed = match.groups()
    if name.lower() not in KNOWN:
        return match[0]
    if len(name) == 1 and not slash and "<<" not in opened and len(closed) == 1:
        return match[0]  # one letter could be a variable: "x < i > y" is arithmetic, "< / i >" and "<< i >>" are not
    return f"<{slash}{name}{tail if tail.endswith('/') else ''}>"


def _squeezed(html: str) -> str:
    """For comparison: a space before ">" is legal HTML and no debris."""
    return re.sub(r"\s{1,8}(/?)>", r"\1>", html)


# ----------------------------------------------------------------------------- shortcodes

_SHORTCODE = re.compile(r"\[\[([^\[\]]*)\]\]|\[(/?)([a-zA-Z][\w-]{1,40}+)(\s[^\[\]]{0,2000}+)?/?\]")
_EMBED = re.compile(r"\[embed[^\[\]]{0,300}\]\s{0,9}(https?://[^\s\[<\"']{1,2000}+)\s{0,9}\[/embed\]", re.IGNORECASE)
_KNOWN_CODES = frozenset(("audio", "caption", "contact-form", "embed", "gallery", "more", "playlist", "video", "toc"))


def without_shortcodes(html: str) -> str:
    """Take WordPress shortcodes out and keep what stands between them; "[sic]" and "[1]" are text.

    One that we do not know must look like one: it has attributes, an underscore, or is closed somewhere.
    """
    if "[" not in html:
        return html
    html = _EMBED.sub(r'<p><a href="\1">\1</a></p>', html)
    closed = set(re.findall(r"\[/([\w-]+)\]", html))

    def replace(match: re.Match[str]) -> str:
        escaped, end, name, attributes = match.groups()
        if escaped is not None:  # [[gallery]] is how one writes about [gallery]
            return f"[\u2060{escaped}]"  # a word joiner: what is shown as text must not be read as a shortcode again
        if name in ("caption", "wp_caption"):
            return f"<{end}figure>"
        known = name in _KNOWN_CODES or name in closed or "_" in name or "=" in (attributes or "")
        return "" if known else match[0]

    return _SHORTCODE.sub(replace, html)


# ----------------------------------------------------------------------------- before the allow-list

_IMG = re.compile(r"<img\b[^<>]*>", re.IGNORECASE)
_LAZY = re.compile(r"\sdata-(?:lazy-|orig(?:inal)?-|full-)?src=", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\ssrc=([\"'])(?:data:[^\"']*|[^\"']*(?:placeholder|blank\.gif)[^\"']*)\1", re.IGNORECASE)


def load_lazy_images(html: str) -> str:
    """Give an image that a script was to load its address; its placeholder is none."""
    if "data-" not in html or _LAZY.search(html) is None:
        return html

    def real(match: re.Match[str]) -> str:
        tag = _PLACEHOLDER.sub("", match[0])
        return tag if re.search(r"\ssrc=", tag) else _LAZY.sub(" src=", tag, count=1)

    return _IMG.sub(real, html)


_BLOCKS = tuple(
    name
    for line in (
        "#ez-toc-container .ez-toc-container .lwptoc #toc_container .toc_container .rank-math-toc",
        ".wp-block-rank-math-toc-block .wp-block-yoast-seo-table-of-contents .yarpp .yarpp-related .jp-relatedposts",
        "#jp-relatedposts .related-posts .crp_related .wp-block-jetpack-related-posts .jnews_inline_related_post",
        ".sharedaddy .sd-sharing .addtoany_share_save_container .addtoany_content .heateor_sss_sharing_container",
        ".social-share .share-buttons .essb_links .swp_social_panel .jeg_share_button .more-link .adsbygoogle",
        ".advertisement .mc4wp-form .feedflare .screen-reader-text .jnews_inline_related_post_wrapper .jeg_ad",
        ".ads-wrapper .ez-toc-title-container .wp-block-table-of-contents .simpletoc .essb_displayed_inline",
        ".jp-post-flair .ai_widget .addtoany_list .wp-block-outermost-social-sharing .related_posts .zem_rp_wrap",
        ".rp4wp-related-posts",
    )
    for name in line.split()
)
_BLOCK_SELECTOR = ", ".join(_BLOCKS)
# Each name holds one of these: a body without any of them needs no parser.
_PARTS = (
    "toc", "-of-contents", "yarpp", "related", "_rp_", "rp4wp", "shar", "addtoany", "essb", "social", "-link", "ads",
    "advert", "mc4wp", "feedflare", "screen-reader", "jeg_ad", "jp-post", "ai_widget",
)  # fmt: skip
_PART = re.compile("|".join(_PARTS))


def without_blocks(html: str) -> str:
    """Remove tables of contents, share bars, related articles and advertisements that name themselves."""
    if _PART.search(html) is None:
        return html
    body = LexborHTMLParser(html).body
    found = body.css(_BLOCK_SELECTOR) if body is not None else []
    if body is None or not found:
        return html
    for node in found:
        node.decompose()
    return body.inner_html or ""


# ----------------------------------------------------------------------------- after the allow-list

#: An image as the allow-list writes it, and its attributes.
SAFE_IMG = re.compile(r'<img((?:\s[\w-]+(?:="[^"]*")?)*)>')
IMG_ATTRIBUTE = re.compile(r'\s([\w-]+)="([^"]*)"')
_COUNTER = re.compile(
    r"//(?:[\w.-]+\.)?(?:doubleclick\.net|feedburner\.com|gravatar\.com|scorecardresearch\.com|stats\.wordpress\.com"
    r"|pixel\.wp\.com|facebook\.com/tr)|s\.w\.org/images/core/emoji|/pixel\.(?:gif|png)",
    re.IGNORECASE,
)
_FIRST_ON = (
    "appeared first on", "erschien zuerst auf", "est apparu en premier sur", "se publicó primero en",
    "apareceu primeiro em",
)  # fmt: skip
_CREDITS = ("The post ", "Der Beitrag ", "L’article ", "L&#8217;article ", "La entrada ", "O post ")
_CUT_HERE = re.compile(r"\s{0,9}\[(?:…|\.\.\.|&hellip;|&#8230;)\]")
_EMPTY = re.compile(r"<(p|figure|a|h[1-6]|li|ul|div)(?: [^<>]*)?>\s*</\1>")


_LABEL = (
    r"advertisements?|anzeige|publicidad|publicité|sponsored(?: content)?|table of contents"
    r"|share (?:this|it)(?: (?:post|article|story|page|entry|now))?(?: on)?|share(?: on)?:?(?: (?:facebook|twitter|x"
    r"|whatsapp|linkedin|telegram|reddit|pinterest|e-?mail))?|related (?:posts?|articles?|stories|news|reading)"
    r"|you (?:may|might) also (?:like|enjoy)(?: (?:this|these))?|recommended for you|more from (?:us|this author)"
    r"|no results?|view all results?|toggle(?: table of contents?)?|skip to content|subscribe to our newsletter"
)
_OPEN, _SHUT = r"\s*+(?:<(?:strong|b|em|i|u|small)>\s*+)*+", r"\s*+(?:</(?:strong|b|em|i|u|small)>\s*+)*+"
_LINK = r"<a(?: [^<>]*+)?>[^<>]*+</a>"
_LABELLED = re.compile(  # with the list of links that it stands above
    rf"<(p|div|h[1-6])(?: [^<>]*+)?>{_OPEN}(?:{_LABEL})\s*+[:–-]?{_SHUT}</\1>"
    rf"(?:\s*+<(ul|ol)(?: [^<>]*+)?>(?:\s*+<li>\s*+(?:<p>\s*+)?{_LINK}\s*+(?:</p>\s*+)?</li>)++\s*+</\2>)?",
    re.IGNORECASE,
)
_ALSO = re.compile(
    rf"<(p|div|h[1-6])(?: [^<>]*+)?>{_OPEN}(?:read (?:also|more|next|this)|also read"
    rf"|related(?: (?:article|story|news))?|don[’']t miss|lesen sie auch|lire aussi|lea también)"
    rf"\s*+:{_SHUT}{_OPEN}{_LINK}\s*+\.?{_SHUT}</\1>",
    re.IGNORECASE,
)
_ANY_TAG = re.compile(r"</?[a-zA-Z][^<>]*+>")
_VOID = ("<br", "<hr", "<img", "<wbr", "<col>", "<col ")
_PRE = re.compile(r"(<pre(?: [^<>]*)?>)\n+")
_PASSES = 50  # what is taken out may leave an empty shell around it, and that another


def tidied(html: str) -> str:
    """Return safe HTML without pixels that count readers, empty shells, labels of advertisements and share bars, links
    to other articles that stand alone, and the credit of the feed plugin. Done again it changes nothing.
    """
    if "<img" in html:
        html = SAFE_IMG.sub(lambda m: "" if _is_counter(m[1]) else m[0], html)
    if "[" in html:
        html = _CUT_HERE.sub("…", html)
    if "<pre" in html:
        html = _PRE.sub(r"\1", html)  # a parser drops the first line break: it would go with the next cleaning
    for _ in range(_PASSES):
        before = html
        html = _ALSO.sub("", _LABELLED.sub("", without_credit(html)))
        html = _EMPTY.sub("", html)
        if html == before:
            break
    return re.sub(r"\n{3,}", "\n\n", html) if "\n\n\n" in html else html


def without_credit(text: str) -> str:
    """Take the last "The post … appeared first on …" off, with its paragraph if it has one to itself."""
    found = max(text.rfind(words) for words in _FIRST_ON)
    if found < 0:
        return text
    floor = max(0, found - 1_500)
    paragraph = max(text.rfind("<p>", floor, found), text.rfind("<p ", floor, found))
    find = text.rfind if paragraph < 0 else text.find
    begin = max(find(words, max(floor, paragraph), found) for words in _CREDITS)
    end = text.find("</p>", found)
    end = len(text) if end < 0 else end
    if begin < 0 or "</p>" in text[begin:found]:
        return text
    if paragraph >= 0 and end < len(text) and not _ANY_TAG.sub("", text[paragraph:begin]).strip():
        return text[:paragraph] + text[end + len("</p>") :]
    return text[:begin] + "".join(_unpaired(_ANY_TAG.findall(text[begin:end]))) + text[end:]


def _unpaired(tags: list[str]) -> list[str]:
    """Those of *tags* that close or open something outside: they stay where what stood between them goes."""
    kept: list[str] = []
    for tag in tags:
        if tag.startswith("</") and kept and not kept[-1].startswith("</"):
            kept.pop()
        elif not tag.startswith(_VOID):
            kept.append(tag)
    return kept


def is_cut(summary: str) -> bool:
    """Whether a machine cut a summary off."""
    return _CUT_HERE.search(summary) is not None


def without_cut_mark(summary: str) -> str:
    """Take a "[…]" off; say with "…" that it stops inside a sentence."""
    cut = _CUT_HERE.sub("", summary).strip()
    if cut != summary.strip() and cut and cut[-1] not in '.!?…”"':
        cut += "…"
    return cut


def _is_counter(attributes: str) -> bool:
    found = dict(IMG_ATTRIBUTE.findall(attributes))
    size = min((int(found[side]) for side in ("width", "height") if found.get(side, "").isdecimal()), default=99)
    return "src" not in found or size <= 2 or _COUNTER.search(found["src"]) is not None
