"""Jinja as templates may use it: plain data in, bounded work, one sentence out when something is wrong.

Owns the environments (HTML and text), their filters, the limits, and the one-line templates of subjects and preheaders.
Knows neither MJML nor where templates lie.

Whoever can edit a template is not trusted with the machine: templates see dicts, lists, strings and numbers only, may
call no method, and pay from a purse of steps for every loop turn and call. A compiled layout is tried out in a child
process too (see compile.py).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from digest.errors import Problem, RenderError, TemplateBroken
from digest.rendering.source import Source

MAX_STEPS = 50_000  # loop turns and calls of one rendering
CHARACTERS_A_STEP = 200
MAX_STRING = 100_000  # characters that one operation may make
MAX_OUTPUT = 1_000_000  # characters that one rendering may give
MAX_LINE_SOURCE = 1_000  # characters of a subject or preheader template
LINE_BYTES = 200  # UTF-8 bytes of a subject or preheader

_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "e", "escape", "first", "int", "join", "last", "length", "list",
    "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "select", "selectattr", "sort",
    "string", "sum", "title", "trim", "truncate", "unique", "upper", "urlencode", "wordcount",
)  # fmt: skip
_FAULTS = (
    TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError,
)  # fmt: skip
Place = tuple[str, int, int]  # file, line, column
_purse: ContextVar[list[int] | None] = ContextVar("purse", default=None)


class Sandbox(ImmutableSandboxedEnvironment):
    """A stricter sandbox than Jinja's: no methods, few filters, and no operation that makes much out of little."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(undefined=StrictUndefined, finalize=_printed, **options)
        self.filters = {name: self.filters[name] for name in _FILTERS}
        self.filters |= {"wrap": wrap, "underline": underline, "fill": fill, "replace": _replace, "join": _join}
        self.filters |= {"sum": _sum, "__turns": _turns, "__concat": _concat, "__weighed": _weighed, "__pay": _pay}
        namespace = self.globals["namespace"]
        self.globals.clear()
        self.globals |= {"range": _range, "namespace": namespace}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, Namespace):
            return not attr.startswith("_")
        return isinstance(obj, LoopContext) and super().is_safe_attribute(obj, attr, value)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A name of a dict is its key, never a method of it: what templates ask for all the time, without a detour."""
        if type(obj) is dict:
            try:
                return obj[attribute]
            except KeyError:
                return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _check_operands(operator, left, right)
        return _bounded(super().call_binop(context, operator, left, right))

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        _pay()
        return super().call(context, obj, *args, **kwargs)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Compile what could make much out of little to bounded forms (a hook that Jinja's documentation offers)."""
        return super()._generate(_Bounds().visit(source), *args, **kwargs)


class _Bounds(NodeTransformer):
    """A loop pays for each turn and for the text in it, a macro for each call; what is built of parts is weighed."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        cost = nodes.Const(_cost(node))
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "__turns", [cost], [], None, None, lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        paid = nodes.Filter(nodes.Const(_cost(node)), "__pay", [], [], None, None, lineno=node.lineno)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(paid, lineno=node.lineno))
        return node

    visit_CallBlock = visit_Macro

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Filter(node, "__weighed", [], [], None, None, lineno=node.lineno)

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self.visit_List(node) if node.ctx == "load" else node  # type: ignore[arg-type]

    def visit_ScopedEvalContextModifier(self, node: nodes.ScopedEvalContextModifier) -> nodes.Node:
        raise TemplateSyntaxError("autoescape cannot be switched here; text is always escaped", node.lineno)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "__concat", [], [], None, None, lineno=node.lineno)


def _cost(node: nodes.Node) -> int:
    """Steps of one turn or call: one, and one for every so many characters of text in it."""
    return 1 + sum(len(text.data) for text in node.find_all(nodes.TemplateData)) // CHARACTERS_A_STEP


def html_environment() -> Sandbox:
    return Sandbox(autoescape=True, keep_trailing_newline=True, trim_blocks=True)


def text_environment() -> Sandbox:
    # Plain text has nothing to escape for; what article text may hold is settled before it comes here.
    return Sandbox(autoescape=False, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True)


# ----------------------------------------------------------------------------- limits


def _pay(steps: int = 1) -> None:
    """Take *steps* from the purse of this rendering."""
    if (purse := _purse.get()) is not None:
        purse[0] -= steps
        if purse[0] < 0:
            raise SecurityError(f"it takes more than {MAX_STEPS} steps")


def _bounded(value: Any) -> Any:
    if (isinstance(value, str) and len(value) > MAX_STRING) or (isinstance(value, int) and value.bit_length() > 256):
        raise SecurityError("a value in it grows too large")
    return _weighed(value) if isinstance(value, list | tuple | dict) else value


def _weighed(value: Any) -> Any:
    """A list as large as all that is in it: lists in lists double with each level, and cost nothing until printed."""
    weight, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        weight += len(item) if isinstance(item, str) else 1
        if isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list | tuple):
            waiting += item
        if weight + len(waiting) > MAX_STRING:
            raise SecurityError("a value in it grows too large")
    return value


def _printed(value: Any) -> Any:
    """What ``{{ … }}`` prints: texts and numbers. A text pays for its length, wherever it is kept until the end."""
    if isinstance(value, str):
        if len(value) >= CHARACTERS_A_STEP:
            _pay(len(value) // CHARACTERS_A_STEP)
    elif not (value is None or isinstance(value, int | float | Undefined)):
        raise SecurityError(f"a {type(value).__name__} cannot be printed; print what is in it")
    return value


def _sum(items: Iterable[Any], attribute: str | None = None) -> Any:
    numbers = [item if attribute is None else item[attribute] for item in items]
    if not all(isinstance(number, int | float) for number in numbers):
        raise SecurityError("sum() is of numbers")
    return _bounded(sum(numbers))


def _check_operands(operator: str, left: Any, right: Any) -> None:
    """Refuse before the work is done what would only be found too large after it."""
    if operator == "%" and isinstance(left, str | bytes):
        raise SecurityError("'%' is for numbers here, not for text")
    if operator == "**" and not (isinstance(right, int | float) and abs(right) <= 16):
        raise SecurityError("an exponent is larger than 16")
    if operator == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(many, str | list | tuple) and isinstance(times, int) and len(many) * times > MAX_STRING:
                raise SecurityError("a value in it grows too large")


def _turns(items: Iterable[Any], cost: int = 1) -> Iterator[Any]:
    for item in items:
        _pay(cost)
        yield item


def _concat(parts: list[Any]) -> Any:
    from markupsafe import Markup, escape

    if any(hasattr(part, "__html__") for part in parts):
        return _bounded(Markup("").join(map(escape, parts)))
    return _bounded("".join(map(str, parts)))


def _range(*bounds: int) -> range:
    if len(numbers := range(*bounds)) > 1_000:
        raise SecurityError("range() of more than 1000")
    return numbers


def _replace(text: Any, old: str, new: str) -> Any:
    text, old, new = str(text), str(old), str(new)
    if len(text) // max(1, len(old)) * len(new) > MAX_STRING:
        raise SecurityError("a value in it grows too large")
    return _bounded(text.replace(old, new))


def _join(items: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    chosen = [item if attribute is None else item[attribute] for item in items]
    if sum(len(str(item)) + len(separator) for item in chosen) > MAX_STRING:
        raise SecurityError("a value in it grows too large")
    return separator.join(map(str, chosen))


# ----------------------------------------------------------------------------- filters


_BLANK = "\t\n\v\f\r "  # not the blanks that keep two words together
_BLANKS = re.compile(f"[{_BLANK}]+")


def wrap(text: str, width: int = 72, indent: str = "") -> str:
    """Break *text* into lines of at most *width*; a longer word (an address) stays whole."""
    source, indent = _BLANKS.sub(" ", _bounded(str(text)).strip(_BLANK)), str(indent)[:20]
    room = max(20, min(int(width), 200)) - len(indent)
    lines, at = [], 0
    while len(source) - at > room:
        cut = source.rfind(" ", at, at + room + 1)
        if cut < 0 and (cut := source.find(" ", at + room)) < 0:
            break
        lines.append(indent + source[at:cut])
        at = cut + 1
    return "\n".join([*lines, indent + source[at:]]) if source else ""


def underline(text: str, mark: str = "-") -> str:
    """A line as long as the longest line of *text*, to stand below it."""
    return str(mark)[:1] * min(72, max(map(len, str(text).split("\n"))))


def fill(text: str, **values: Any) -> str:
    """Put *values* at their ``{names}``. The result is plain text, escaped where it is printed."""
    source, filled = _bounded(str(text)), {name: str(value) for name, value in values.items()}
    if sum(len(filled.get(name, "")) for name in re.findall(r"\{(\w+)\}", source)) > MAX_STRING:
        raise SecurityError("a value in it grows too large")
    return re.sub(r"\{(\w+)\}", lambda m: filled.get(m[1], m[0]), source)


# ----------------------------------------------------------------------------- rendering


def parsed(environment: Sandbox, source: Source) -> Template:
    """A template that knows where its lines come from. TemplateBroken where it does not parse."""
    with explained(source.file, source.line):
        template = environment.from_string(source.text)
    template.place = source.line  # type: ignore[attr-defined] # what ``explained`` asks when it renders
    return template


@contextmanager
def explained(name: str, line: Callable[[int], Place] | None = None) -> Iterator[None]:
    """Turn whatever a template does wrong into one TemplateBroken that names the template.

    *line*: where a line of it comes from, where it is not parsed yet (see ``parsed``).
    """
    held = _purse.set([MAX_STEPS])
    try:
        yield
    except TemplateSyntaxError as error:
        place = line(error.lineno) if line else (name, error.lineno if "/" in name else 0, 0)
        raise TemplateBroken([Problem(*place, error.message or "does not parse")]) from error
    except _FAULTS as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise TemplateBroken([Problem(*(_place_of(error) or (name, 0, 0)), text[:300])]) from error
    finally:
        _purse.reset(held)


def _place_of(error: BaseException) -> Place | None:
    """The line that was being rendered, by Jinja's own map from the code it makes to the template."""
    found, trace = None, error.__traceback__
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        if (place := getattr(template, "place", None)) is not None:
            found = place(template.get_corresponding_lineno(trace.tb_lineno))  # type: ignore[union-attr]
        trace = trace.tb_next
    return found


def drain(stream: Iterable[str]) -> str:
    """Collect what a template yields, but not without end."""
    parts: list[str] = []
    length, rest = 0, iter(stream)
    while some := list(itertools.islice(rest, 500)):  # whose text is the template's own, or was paid for
        parts += some
        length += sum(map(len, some))
        if length > MAX_OUTPUT:
            raise SecurityError("it renders more than a mail can hold")
    return "".join(parts)


def render(template: Template, values: Mapping[str, Any]) -> str:
    """Render the whole of *template*. Call inside ``explained``."""
    return drain(template.root_render_func(template.new_context(dict(values))))


def render_around(template: Template, block: str, place: str, values: Mapping[str, Any]) -> str:
    """Render the whole of *template*, but *place* where *block* would stand. Call inside ``explained``."""
    context = template.new_context(dict(values))
    context.blocks[block] = [lambda _: iter((place,))]
    return drain(template.root_render_func(context))


def render_block(template: Template, block: str, context: Context, values: Mapping[str, Any]) -> str:
    """Render one named block of *template* by itself: *values* above what *context* holds. Call inside ``explained``.

    A context is dear to make, and may be used for one block after the other, by one thread at a time.
    """
    context.vars = dict(values)
    return drain(template.blocks[block](context))


# ----------------------------------------------------------------------------- one line

_lines = Sandbox(autoescape=False)  # escaped where a line is put into HTML
_LINE_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem,
    nodes.Filter, nodes.Test, nodes.If, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not,
    nodes.Concat, nodes.List, nodes.Tuple, nodes.Slice, nodes.Add, nodes.Sub, nodes.Keyword, nodes.Neg,
)  # fmt: skip
# controls, line ends, lone surrogates, and marks that reorder what stands around them
_NOT_IN_A_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]+")
_cached_lines: dict[str, Template] = {}


def one_line(text: str, limit: int = LINE_BYTES) -> str:
    """Make *text* one clean line of at most *limit* bytes of UTF-8, cut at a word."""
    if text.isprintable():  # as nearly all there is
        line = " ".join(text.split())
    else:
        line = " ".join(_NOT_IN_A_LINE.sub(" ", text).split())
    line = line.replace("=?", "= ?")  # RFC 2047: never let an article's title pass for an encoded word
    if len(raw := line.encode()) <= limit:
        return line
    cut = raw[: limit - len("…".encode())].decode("utf-8", "ignore")
    return (cut[: cut.rfind(" ")] if " " in cut[len(cut) // 2 :] else cut).rstrip(" ,;:.–-") + "…"


def check_line(template: str, what: str = "subject") -> None:
    """Raise RenderError unless *template* can be a subject or a preheader: placeholders and conditions alone."""
    _line_template(template, what)(_SAMPLE_LINE)


def render_line(template: str, values: Mapping[str, Any], what: str = "subject") -> str:
    """Render a subject or preheader to one clean line."""
    return _line_template(template, what)(values)


def _line_template(source: str, what: str) -> Callable[[Mapping[str, Any]], str]:
    name = f"the {what} template"
    if (template := _cached_lines.get(source)) is None:
        if len(source) > MAX_LINE_SOURCE:
            raise RenderError(f"{name} is longer than {MAX_LINE_SOURCE} characters")
        with explained(name):
            tree = _lines.parse(source)
            for node in tree.find_all(nodes.Node):
                if not isinstance(node, (*_LINE_NODES, nodes.EvalContextModifier)):
                    kind = type(node).__name__.lower()
                    raise RenderError(
                        f"{name}: {kind!r} has no place in one line; use {{{{ … }}}} and {{% if %}} alone"
                    )
            template = _lines.from_string(source)
        if len(_cached_lines) > 1_000:
            _cached_lines.clear()
        _cached_lines[source] = template

    def rendered(values: Mapping[str, Any]) -> str:
        with explained(name):
            return one_line(render(template, values))

    return rendered


_SAMPLE_LINE: dict[str, Any] = {
    "digest": {"name": "Morning", "slug": "morning"},
    "edition": {"date": "Tuesday, 14 July 2026", "day": "2026-07-14", "url": "https://news.example/archive", "id": 1},
    "lead": {"title": "A title", "url": "https://news.example/a", "excerpt": "", "category": "", "author": ""},
    "others": ["Another title"],
    "count": 2,
    "brand": {"name": "News", "url": "https://news.example/"},
}
