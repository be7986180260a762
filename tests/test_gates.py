"""Gates: each lets a sound mail pass, finds its own fault in a bad one, and holds the edition with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from digest import models as m
from digest.db import Database
from digest.editions import DigestFields
from digest.errors import RenderError, UsageError
from digest.rendering import Renderer, gates
from digest.types import Body, Dress, Format, RenderedVariant, Section
from tests import build
from tests.mail_gallery import LANGUAGES, LAYOUTS, SIZES, sections, view
from tests.office import Office, newsroom

AT = build.T.replace(hour=7) + timedelta(days=1)


def made(layout: str = "cards", language: str = "en", count: int = 12, **changes: object) -> list[gates.Gate]:
    dressed = Renderer().layout(layout).open(view(language, layout, **changes), Dress(language))
    chosen = sections(language, count)
    return gates.check(dressed, chosen, dressed.assemble(chosen, had=3))


def failing(found: list[gates.Gate]) -> dict[str, str]:
    return {gate.gate: gate.detail for gate in found if not gate.ok}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_passes_in_every_language_and_size(layout: str) -> None:
    for language in LANGUAGES:
        for count in SIZES:
            found = made(layout, language, count)
            assert failing(found) == {}, (language, count)
            assert {"html_size", "subject", "no_template_left", "unsubscribe", "text_part", "alt", "links",
                    "contrast_light", "contrast_dark"} == {gate.gate for gate in found}  # fmt: skip


@pytest.mark.parametrize("accent", ["#ffff00", "#000000", "#ffffff", "#ff0000", "#7f7f7f"])
def test_any_accent_can_be_read(accent: str) -> None:
    brand = replace(view("en").brand, accent=accent)
    for layout in LAYOUTS:
        assert failing(made(layout, brand=brand)) == {}


def html(change: Callable[[str], str]) -> Callable[[RenderedVariant], RenderedVariant]:
    return lambda v: replace(v, html=change(v.html))


FAULTS = {
    "html_size": (lambda v: replace(v, html_size=95_001), "95,001 of 95,000 bytes"),
    "subject": (lambda v: replace(v, subject="Two\nlines"), "control characters"),
    "text_part": (lambda v: replace(v, text=v.text.replace("https://news.example/en/3", "")), "lacks the link"),
    "alt": (html(lambda h: h.replace('alt="Illustration of ', 'title="', 1)), "has no alt"),
    "links": (html(lambda h: h.replace('href="https://news.example/en/2"', 'href="/en/2"', 1)), "/en/2 is no https"),
    "contrast_light": (html(lambda h: h.replace("color:#3b4148", "color:#cccccc", 1)), "to 1 in light mode"),
    "contrast_dark": (html(lambda h: h.replace(".soft { color: #ccd1d6", ".soft { color: #333333", 1)), "in dark mode"),
    "unsubscribe": (lambda v: replace(v, text_body=Body((b"",), ())), "the text part has no"),
}  # fmt: skip


@pytest.mark.parametrize("gate", FAULTS)
def test_a_fault_is_found_and_told(gate: str) -> None:
    change, says = FAULTS[gate]
    dressed, chosen = Renderer().layout("cards").open(view("en"), Dress()), sections("en", 12)
    variant = change(dressed.assemble(chosen))
    found = failing(gates.check(dressed, chosen, variant))
    assert set(found) == {gate}
    assert says in found[gate]
    assert "\n" not in found[gate]


def test_long_and_empty_subjects_and_headings_that_text_lacks() -> None:
    dressed, chosen = Renderer().layout("cards").open(view("en"), Dress()), sections("en", 3)
    sound = dressed.assemble(chosen)
    for variant in (replace(sound, subject="x" * 201), replace(sound, subject=" ")):
        assert set(failing(gates.check(dressed, chosen, variant))) == {"subject"}
    assert "text_part" in failing(gates.check(dressed, chosen, replace(sound, text=sound.text.replace("CDC", ""))))
    assert "text_part" in failing(gates.check(dressed, chosen, replace(sound, text="")))


@pytest.mark.parametrize(
    "said", ["Dear {{ first_name }}", "*|FNAME|*, hello", "%%name%%", "[[name]]", "Hi %FIRST_NAME%"]
)
def test_what_nobody_fills_in_is_found_in_the_admins_texts_alone(said: str) -> None:
    assert set(failing(made(closing=said))) == {"no_template_left"}
    story = replace(sections("en", 3)[0].stories[0].lead, title=said, excerpt=said)
    dressed = Renderer().layout("cards").open(view("en"), Dress())
    chosen = (Section("", (replace(sections("en", 3)[0].stories[0], lead=story),)),)
    assert failing(gates.check(dressed, chosen, dressed.assemble(chosen))) == {}


def test_a_layout_of_the_operator_is_looked_at_too(tmp_path: Path) -> None:
    shared = tmp_path / "email" / "shared"
    shared.mkdir(parents=True)
    (shared / "more.mjml").write_text("<tr><td>{{ more.text }}</td></tr>")
    (shared / "section.mjml").write_text(
        '<tr><td style="color:#888888;background:#eee"><h2>{{ section.title }}</h2><a href="http://other.example">x</a></td></tr>'
    )
    dressed = Renderer([tmp_path]).layout("cards").open(view("en"), Dress())
    chosen = sections("en", 3)
    found = failing(gates.check(dressed, chosen, dressed.assemble(chosen)))
    assert set(found) == {"contrast_light", "contrast_dark", "links", "text_part"}


def test_http_links_pass_on_this_machine_alone() -> None:
    chosen = sections("en", 3)
    lead = replace(chosen[0].stories[0].lead, url="http://127.0.0.1:8000/a")
    chosen = (Section("", (replace(chosen[0].stories[0], lead=lead),)),)
    for home, passes in (
        ("http://127.0.0.1:8000/", True),
        ("http://localhost/", True),
        ("https://news.example/", False),
    ):
        dressed = Renderer().layout("cards").open(view("en", home_url=home), Dress())
        assert ("links" not in failing(gates.check(dressed, chosen, dressed.assemble(chosen)))) == passes


def test_mails_of_plain_text_have_fewer_gates() -> None:
    dressed = Renderer().layout("cards").open(view("en"), Dress("en", Format.TEXT))
    found = gates.check(dressed, sections("en", 3), dressed.assemble(sections("en", 3)))
    assert [g.gate for g in found] == ["html_size", "subject", "no_template_left", "unsubscribe"]
    assert failing(found) == {}


# ----------------------------------------------------------------------------- an edition


def test_another_brand_or_template_is_another_hash() -> None:
    """So that an edition tells what its mails were made with."""
    layout = Renderer().layout("cards")
    hashes = {
        layout.open(view("en", **changes), Dress()).hash
        for changes in ({}, {"brand": replace(view("en").brand, accent="#aa0000")},
                        {"brand": replace(view("en").brand, footer_links=())}, {"digest_name": "Another"})
    }  # fmt: skip
    assert len(hashes) == 3


def test_a_failed_gate_holds_the_edition_until_it_is_mended(database: Database) -> None:
    newsroom(database, readers=2)
    with database.transaction() as session:
        bad = build.article(session, title="Bare", url="http://other.example/bare", categories=["Africa"]).id
    office = Office(database)
    office.tick(AT)
    [edition] = office.editions()
    assert edition.status == "held"
    assert edition.reason is not None
    assert edition.reason.startswith("http://other.example/bare is no https link; ")
    assert [g["gate"] for g in edition.gates if not g["ok"]] == ["links"]
    office.editor.approve(edition.id)
    assert office.editions()[0].status == "held", "nobody can wave a broken mail through"
    assert office.outbox.posted == []
    from digest.editions import exclude_article

    exclude_article(database, bad, "morning", AT)
    office.editor.approve(edition.id)
    office.send()
    [edition] = office.editions()
    assert edition.status == "finished"
    assert all(g["ok"] for g in edition.gates)
    assert len(office.outbox.posted) == 2


def test_an_edition_keeps_its_gates_and_preview_tells_the_same(database: Database) -> None:
    newsroom(database)
    office = Office(database)
    told = office.preview("morning", AT).data["gates"]
    office.tick(AT)
    kept = office.editions()[0].gates
    assert [g["gate"] for g in told] == [g["gate"] for g in kept]
    assert all(g["ok"] and isinstance(g["detail"], str) for g in [*told, *kept])


def test_an_edition_may_have_a_subject_of_its_own(database: Database) -> None:
    newsroom(database, approve=True)
    office = Office(database)
    office.tick(AT)
    [edition] = office.editions()
    office.editor.reword(edition.id, subject="Special: {{ lead.title }}", preheader="Only today")
    with pytest.raises(RenderError, match="undefined"):
        office.editor.reword(edition.id, subject="{{ nobody }}")
    office.editor.approve(edition.id)
    office.send()
    [edition] = office.editions()
    assert edition.subject == "Special: Story 1"
    assert b"Subject: Special: Story 1\r\n" in office.outbox.posted[0].message
    with pytest.raises(UsageError, match="cannot be changed any more"):
        office.editor.reword(edition.id, subject="Too late")


def test_two_editions_in_a_row_never_bear_the_same_subject(database: Database) -> None:
    """Whatever the template says: nothing, the date, a title that comes again."""
    newsroom(database, articles=1, lookback_s=2 * 86400)
    office = Office(database)
    subjects = []
    for day, template in enumerate(["News", "News", "{{ edition.date }}", "{{ edition.date }}", "{{ lead.title }}"]):
        office.setup.change("morning", DigestFields(subject=template))
        for hour in range(2):
            at = AT + timedelta(days=day, hours=hour)
            with database.transaction() as session:
                build.article(session, title="Weather", categories=["Africa"], published_at=at - timedelta(hours=1))
            office.editor.compose(edition := office.editor.open_manual("morning", at))
            office.editor.release(edition)
            subjects.append(next(e.subject for e in office.editions() if e.id == edition))
    assert all(a != b for a, b in pairwise(subjects)), subjects
    assert subjects[0].startswith("News · ")
    assert subjects[1].endswith(" (2)")
    assert subjects[-1].startswith("Weather · ")
    assert len(set(subjects)) == len(subjects)


def test_who_writes_is_the_digest_else_the_publication(database: Database) -> None:
    newsroom(database, readers=1)
    with database.transaction() as session:
        session.get_one(m.Publication, 1).from_name = "The Desk"
    office = Office(database)
    office.tick(AT)
    assert b"From: The Desk <news@news.example>" in office.outbox.posted[0].message
