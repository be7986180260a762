# ruff: noqa: E501 - one attack a line
"""What whoever can edit a template tries: to reach more than they are given, to run without end, to fill the memory."""

from __future__ import annotations

import re
import resource
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digest.errors import RenderError
from digest.rendering import sandbox

VALUES = {
    "digest": {"name": "N"},
    "others": ["x", "y"],
    "words": {"a": "b"},
    "address": "t0ken",
    "lead": {"title": "<b>"},
}
BIG = "'x' * 90000"

REACHING = (
    # classes, globals, frames
    "{{ self }}", "{{ self._TemplateReference__context }}", "{{ self.__dict__ }}", "{{ cycler }}", "{{ dict }}",
    "{{ namespace.__init__.__globals__ }}", "{{ namespace().__class__ }}", "{{ range.__class__ }}", "{{ range.__self__ }}",
    "{{ ().__class__.__base__.__subclasses__() }}", "{{ (1).__class__ }}", "{{ 1.0.__class__ }}", "{{ none.__class__ }}",
    "{% for x in others %}{{ loop.__class__ }}{% endfor %}", "{% for x in others %}{{ loop.cycle.__globals__ }}{% endfor %}",
    "{% for x in others %}{{ loop._iterator }}{% endfor %}", "{% for x in others %}{{ loop._undefined }}{% endfor %}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% macro m() %}{% endmacro %}{{ m.__init__ }}", "{% macro m() %}{% endmacro %}{{ m._func }}",
    "{{ digest.__getitem__('name') }}", "{{ digest['__class__'] }}", "{{ digest.get.__self__ }}", "{{ digest.keys() }}",
    "{{ ''.join.__self__ }}", "{{ ''.__class__.mro() }}", "{{ \"\"['\\x5f\\x5fclass\\x5f\\x5f'] }}", "{{ ''['__cla' ~ 'ss__'] }}",
    "{{ (others | map('upper')).gi_frame }}", "{{ (others | select).gi_code }}", "{{ (others | map('upper')) }}",
    # filters that look up attributes
    "{{ digest | attr('keys') }}", "{{ others | map('attr', '__class__') | list }}", "{{ others | map(attribute='__class__') | list }}",
    "{{ others | sort(attribute='__class__') | first }}", "{{ others | sum(attribute='__class__') }}", "{{ others | min(attribute='__class__') }}",
    "{{ others | join('', attribute='__class__') }}", "{{ others | selectattr('__class__') | list | first }}",
    "{{ others | unique(attribute='__class__') | first }}", "{{ others | rejectattr('__class__.__mro__') | first }}",
    "{{ others | groupby('__class__') }}", "{{ digest | xmlattr }}", "{{ digest | tojson }}", "{{ digest | pprint }}", "{{ digest | items | list }}",
    # format strings
    "{{ '{0.__class__}'.format(1) }}", "{{ '{a.__class__}'.format_map(digest) }}", "{{ '%s' | format(digest) }}", "{{ '%c' % 99 }}",
    "{{ '{a.__class__}' | fill(a=digest) | attr('x') }}", "{{ f'{digest}' }}",
    # other files, other code
    "{% include '../../etc/passwd' %}", "{% include ['a', '/etc/passwd'] %}", "{% include digest.name ignore missing %}", "{% extends '/etc/passwd' %}",
    "{% extends digest %}", "{% import '/etc/passwd' as x %}", "{% from 'x' import y %}", "{% do digest.clear() %}", "{% debug %}",
    "{% set digest.name = 'x' %}", "{% set x = digest %}{% set x.name = 'y' %}", "{{ digest.setdefault('z', 1) }}", "{{ others.extend(others) }}",
    "{{ others.__iadd__(others) }}", "{{ config.from_object }}", "{{ request.application }}", "{{ get_flashed_messages }}", "{{ url_for.__globals__ }}",
    "{{ env }}", "{{ os.environ }}", "{{ environment }}", "{{ __builtins__ }}", "{{ g }}", "{{ session }}", "{{ _ }}", "{{ gettext }}",
    # article text without its escapes
    "{% autoescape false %}{{ lead.title }}{% endautoescape %}", "{{ lead.title | safe }}", "{{ lead.title | forceescape }}", "{{ lead.title | striptags }}",
    "{{ lead.title | urlize }}", "{{ lead.title | indent }}",
)  # fmt: skip

ENDLESS = (
    "{{ " + BIG + " * 90000 }}", "{{ (9 ** 9) ** 9 ** 9 }}", "{{ 2 ** -2 ** 99 }}", "{{ 9 ** 16 ** 16 }}", "{{ 'x' % digest }}",
    "{{ [1] * 100001 }}", "{{ (1,) * 100001 }}", "{{ [" + BIG + "] * 90000 }}", "{{ ([" + BIG + "] * 90000) | string }}",
    "{{ ([" + BIG + "] * 900) | list | string }}", "{{ range(0, 10 ** 9, 1) | list }}", "{{ range(-10 ** 15, 10 ** 15) | length }}",
    "{{ [[1] * 90000] * 90000 | sum(start=[]) }}", "{{ [[1] * 900, [2] * 900] | sum(start=[]) }}", "{{ ['a', 'b'] | sum }}",
    "{% set n = namespace(a=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% endfor %}{{ n.a }}",
    "{% set n = namespace(a=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% endfor %}{{ n.a == n.a }}{{ n.a | string }}",
    "{% set n = namespace(a={}) %}{% for i in range(60) %}{% set n.a = {'a': n.a, 'b': n.a} %}{% endfor %}{{ n.a | string | length }}",
    "{% set n = namespace(a=(1,)) %}{% for i in range(60) %}{% set n.a = (n.a, n.a) %}{% endfor %}{{ n.a ~ '' }}",
    "{% set n = namespace(a='x') %}{% for i in range(99) %}{% set n.a = n.a + n.a %}{% endfor %}",
    "{% set n = namespace(a='x') %}{% for i in range(99) %}{% set n.a = n.a | replace('x', 'xx') %}{% endfor %}",
    "{% set n = namespace(a='x') %}{% for i in range(99) %}{% set n.a = [n.a, n.a] | join %}{% endfor %}",
    "{{ ('{a}' * 30000) | fill(a=" + BIG + ") }}", "{{ ('x ' * 40000) | wrap(20, " + BIG + ") | length ** 9 }}{{ 10 ** 99 }}",
    "{% set x %}{% for i in range(999) %}{% for j in range(40) %}{{ " + BIG + " }}{% endfor %}{% endfor %}{% endset %}",
    "{% set x %}{% for i in range(999) %}{% for j in range(40) %}" + "static " * 10_000 + "{% endfor %}{% endfor %}{% endset %}",
    "{% macro m() %}" + "static " * 10_000 + "{% endmacro %}{% set x %}{% for i in range(999) %}{% for j in range(40) %}{{ m() }}{% endfor %}{% endfor %}{% endset %}",
    "{% filter upper %}{% for i in range(999) %}{{ " + BIG + " }}{% endfor %}{% endfilter %}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% for x in others recursive %}{{ loop(others) }}{% endfor %}", "{% macro m() %}{{ caller() }}{% endmacro %}" + "{% call m() %}" * 300 + "{% endcall %}" * 300 + "{{ x }}",
    "{{ " + "(" * 400 + "1" + ")" * 400 + " ** 99 }}", "{{ " + "[" * 300 + "]" * 300 + " }}", "{{ " + "not " * 2000 + "1 ** 99 }}", "{{ 1" + " + 1" * 3000 + " ** 99 }}",
    "{{ '" + "{a}" * 100 + "' | fill(a='y' * 90000) }}", "{{ 'x' | truncate(10 ** 9) | center(10 ** 9) }}", "{{ 1e308 * 10 ** 99 }}",
)  # fmt: skip


def most_memory() -> int:
    """The most bytes that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize("environment", [sandbox.html_environment, sandbox.text_environment], ids=["html", "text"])
@pytest.mark.parametrize("source", [*REACHING, *ENDLESS], ids=range(len(REACHING) + len(ENDLESS)))
def test_nothing_is_reached_and_nothing_is_without_end(source: str, environment: object) -> None:
    """Each is refused in one sentence, soon, before it has taken much memory; what was given is as it was."""
    before, started, memory = repr(VALUES), time.process_time(), most_memory()
    with pytest.raises(RenderError) as caught, sandbox.explained("templates/email/x/edition.mjml"):
        sandbox.render(environment().from_string(source), VALUES)  # type: ignore[operator]
    assert re.match(r"templates/email/x/edition\.mjml:(\d+:)? \S", str(caught.value))
    assert "\n" not in str(caught.value)
    assert time.process_time() - started < 5
    assert most_memory() - memory < 150 << 20
    assert repr(VALUES) == before


@pytest.mark.parametrize(
    ("source", "gives"),
    [("{% for a in others %}{{ loop.index }}{{ a | upper }}{% if not loop.last %}, {% endif %}{% endfor %}", "1X, 2Y"),
     ("{% set n = namespace(c=0) %}{% for a in others %}{% set n.c = n.c + 1 %}{% endfor %}{{ n.c }}", "2"),
     ("{% macro m(a, b=1) %}{{ a }}-{{ b }}{% endmacro %}{{ m('q') }}", "q-1"), ("{{ [1, 2] | sum }}", "3"),
     ("{% if digest.name in ('N', 'M') %}yes{% endif %}", "yes"), ("{{ {'a': 1}.a }}", "1"),
     ("{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }};{% endfor %}", "3;7;"), ("{{ 'a {b}' | fill(b=1) }}", "a 1"),
     ("{{ others | join(', ') }}", "x, y"), ("{% set x %}a{{ 1 }}{% endset %}{{ x }}", "a1"), ("{{ none }}", "None"),
     ("{{ '-' * 10 }}", "-" * 10), ("{{ digest.name | default('z') }}", "N"), ("{{ 7 // 2 }}{{ 7 % 2 }}", "31")],
)  # fmt: skip
def test_what_templates_are_for_goes_on(source: str, gives: str) -> None:
    for environment in (sandbox.html_environment(), sandbox.text_environment()):
        with sandbox.explained("x"):
            assert sandbox.render(environment.from_string(source), VALUES) == gives


@given(st.text("ab \t\n\u00a0é-.", max_size=300), st.integers(20, 80), st.sampled_from(["", "  ", "* "]))
def test_lines_are_wrapped_at_their_blanks(text: str, width: int, indent: str) -> None:
    """Every word where it was, no line longer than asked but by a single word, none that the next could have joined."""
    lines = sandbox.wrap(text, width, indent).split("\n")
    words = re.sub("[ \t\n]+", " ", text).strip(" ")
    assert " ".join(line.removeprefix(indent) for line in lines) == words or not words
    for line, after in zip(lines, [*lines[1:], None], strict=True):
        said = line.removeprefix(indent)
        assert len(line) <= width or " " not in said
        assert after is None or len(line) + 1 + len(after.removeprefix(indent).split(" ")[0]) > width


def test_a_name_of_a_dict_is_its_key_and_never_a_method() -> None:
    with sandbox.explained("x"):
        assert sandbox.render(sandbox.html_environment().from_string("{{ d.items }}"), {"d": {"items": "3"}}) == "3"
    with pytest.raises(RenderError, match="items"), sandbox.explained("x"):
        sandbox.render(sandbox.html_environment().from_string("{{ d.items }}"), {"d": {}})
