"""Markup that wants to act in a reader's browser, in our own words; and what lies beside the project, where it does.

Every vector calls ``ran()``, loads from ``elsewhere.example``, or both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "html-messy"

OWN = [
    "<script>ran()</script>",
    '<script src="https://elsewhere.example/a.js"></script>',
    "<SCRIPT\n>ran()</SCRIPT >",
    "<scr<script>ipt>ran()</scr</script>ipt>",
    "<img src=x onerror=ran()>",
    "<img src=x onerror\n=\n'ran()'>",
    "<img/src='x'/onerror='ran()'>",
    "<img src=`x` onerror=ran()//",
    "<img src='x\" onerror=ran() y=\"'>",
    "<<img src=x onerror=ran()>",
    "< img src=x onerror=ran()>",
    "<svg onload=ran()></svg>",
    "<svg><script>ran()</script></svg>",
    "<svg><animate onbegin=ran() attributeName=x dur=1s></svg>",
    "<svg><style><img src=x onerror=ran()></style></svg>",
    '<svg><use href="https://elsewhere.example/a.svg#x"/></svg>',
    '<svg><image href="https://elsewhere.example/a.png"/></svg>',
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=ran()&gt;'>",
    "<math><style></math><img src=x onerror=ran()>",
    "<form><math><mtext></form><form><mglyph><svg><mtext><style><path id='</style><img onerror=ran() src>'>",
    "<noscript><p title='</noscript><img src=x onerror=ran()>'>",
    "<noembed><img title='</noembed><img src=x onerror=ran()>'>",
    "<textarea><img title='</textarea><img src=x onerror=ran()>'>",
    "<xmp><img title='</xmp><img src=x onerror=ran()>'>",
    "<title><img title='</title><img src=x onerror=ran()>'>",
    "<template><img src=x onerror=ran()></template>",
    "<template shadowrootmode=open><script>ran()</script></template>",
    "<select><img src=x onerror=ran()></select>",
    "<option><style></option></select><b><img src=x onerror=ran()></style></option>",
    "<iframe src='https://elsewhere.example/'></iframe>",
    "<iframe srcdoc='<script>parent.ran()</script>'></iframe>",
    "<object data='https://elsewhere.example/a.swf'></object>",
    "<object data='data:text/html,<script>parent.ran()</script>'></object>",
    "<embed src='https://elsewhere.example/a.swf'>",
    "<applet code=a codebase='https://elsewhere.example/'></applet>",
    "<frameset onload=ran()><frame src='https://elsewhere.example/'></frameset>",
    "<body onload=ran() background='https://elsewhere.example/a.gif'>",
    "<table background='https://elsewhere.example/a.gif'><td background='https://elsewhere.example/b.gif'>x",
    "<link rel=stylesheet href='https://elsewhere.example/a.css'>",
    "<link rel=preload as=script href='https://elsewhere.example/a.js'>",
    "<link rel=import href='https://elsewhere.example/a.html'>",
    "<style>@import 'https://elsewhere.example/a.css'; body{background:url(https://elsewhere.example/a.png)}</style>",
    "<div style='background:url(https://elsewhere.example/a.png)'>x</div>",
    "<p style='list-style-image:url(https://elsewhere.example/a.png);display:list-item'>x</p>",
    "<meta http-equiv=refresh content='0;url=https://elsewhere.example/'>",
    "<base href='https://elsewhere.example/'><img src='relative.png'>",
    "<video src='https://elsewhere.example/a.mp4' poster='https://elsewhere.example/a.png' onerror=ran()></video>",
    "<video><source onerror=ran() src=x></video>",
    "<audio src='https://elsewhere.example/a.mp3' autoplay onerror=ran()></audio>",
    "<input autofocus onfocus=ran()><input type=image src='https://elsewhere.example/a.png'>",
    "<button formaction='javascript:ran()'>x</button>",
    "<form action='javascript:ran()'><input type=submit></form>",
    "<details open ontoggle=ran()><summary>x</summary></details>",
    "<marquee onstart=ran()>x</marquee>",
    "<p onmouseover=ran() onclick=ran() onpointerenter=ran()>x</p>",
    "<div tabindex=0 autofocus onfocus=ran()>x</div>",
    "<style>@keyframes x{}</style><b style='animation-name:x' onanimationstart=ran()>x</b>",
    "<a href='javascript:ran()'>x</a>",
    "<a href='java\tscript:ran()'>x</a>",
    "<a href='&#1;javascript:ran()'>x</a>",
    "<a href='JaVaScRiPt&colon;ran()'>x</a>",
    "<a href='data:text/html,<script>opener.ran()</script>'>x</a>",
    "<a href='vbscript:ran()'>x</a>",
    "<a href='https://news.example/' ping='https://elsewhere.example/ping' onclick=ran()>x</a>",
    "<area href='javascript:ran()'><map name=x><area href='javascript:ran()'></map>",
    "<q cite='javascript:ran()'>x</q><blockquote cite='javascript:ran()'>x</blockquote>",
    "<img src='javascript:ran()'><img src='data:image/svg+xml,<svg onload=ran() xmlns=\"http://www.w3.org/2000/svg\"/>'>",
    "<img srcset='https://elsewhere.example/a.png 2x' src='https://news.example/a.png'>",
    "<img lowsrc='https://elsewhere.example/a.png' dynsrc='https://elsewhere.example/b.avi' src='https://news.example/a.png'>",
    "<picture><source srcset='https://elsewhere.example/a.png'><img src='https://news.example/a.png'></picture>",
    "<!--[if gte IE 4]><script>ran()</script><![endif]-->",
    "<!--><img src=x onerror=ran()>-->",
    "<!-- --!><img src=x onerror=ran()> -->",
    "<![CDATA[<img src=x onerror=ran()>]]>",
    "<?xml-stylesheet href='https://elsewhere.example/a.xsl'?><img src=x onerror=ran()>",
    "<p>]]></p><script>ran()</script>",
    "&lt;script&gt;ran()&lt;/script&gt;",
    "&amp;lt;img src=x onerror=ran()&amp;gt;",
    "<a href='https://news.example/&quot;onmouseover=&quot;ran()'>x</a>",
    "[caption]<img src=x onerror=ran()>[/caption]",
    "[embed]https://news.example/\"onmouseover=\"ran()[/embed]",
    "<img data-src='javascript:ran()' data-srcset='x 1w' src='data:,'>",
    "<img data-src='x\" onerror=\"ran()' src='data:,'>",
    "<p title='\"><img src=x onerror=ran()>'>x</p>",
    "<dialog open><img src=x onerror=ran()></dialog>",
    "<portal src='https://elsewhere.example/'></portal><fencedframe src='https://elsewhere.example/'></fencedframe>",
    "<script type=speculationrules>{\"prefetch\":[{\"urls\":[\"https://elsewhere.example/\"]}]}</script>",
    "<isindex type=image src='https://elsewhere.example/a.png' onerror=ran()>",
]  # fmt: skip


def _strings(thing: object) -> Iterator[str]:
    if isinstance(thing, str):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from _strings(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from _strings(value)


def beside() -> list[str]:
    """Every document of the collections beside the project."""
    found: list[str] = []
    for path in sorted(p for p in CORPUS.rglob("*") if p.is_file()):
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".dat":
            found += re.findall(r"#data\n(.*?)\n#errors", text, re.DOTALL)
            continue
        try:
            found += _strings(json.loads(text))
        except ValueError:
            found.append(text)
    return found
