"""Mails from templates: compile once, render fragments once, assemble variants from bytes.

    renderer = Renderer([Path("my-templates")])
    dressed  = renderer.layout("cards").open(view, dress)     # an edition in one language and format
    variant  = dressed.assemble(sections, more=2)             # ready to be personalised

Owns everything between chosen articles and the two parts of a mail (quoted-printable around personal values), subjects
and preheaders included. Does not choose articles, write headers, or fill in what is personal.

renderer   finds, includes, caches                         source    a template's text, and where each line is from
apart      the child process; what was compiled is kept    compile   MJML and the inliner (runs in the child)
lint       mistakes in MJML, with line and column          grammar   which tags and attributes there are
layout     fragments, costs, assembly                      trial     a layout is tried out before it is used
sandbox    Jinja with limits; one-line templates           pieces    tokens, and the join of bytes
view       what templates see                              links      which are our own, and what is added
subjects   no two editions in a row bear the same          words     catalogues, dates, plurals
phrases    what mails say, in English                      palette   readable colours
gates      what must hold of a mail: shades, spam
"""

from digest.rendering.layout import Dressed, Layout
from digest.rendering.links import check_params
from digest.rendering.renderer import Renderer
from digest.rendering.sandbox import check_line
from digest.rendering.subjects import folded
from digest.rendering.view import check_prose

__all__ = ["Dressed", "Layout", "Renderer", "check_line", "check_params", "check_prose", "folded"]
