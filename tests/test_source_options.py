"""What an operator says about a source: options that are checked, and topics that articles get by words."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digest import catalogue, ingest
from digest.db import Database
from digest.errors import UsageError
from digest.fetch import Fetcher
from digest.sources.options import OPTIONS, TopicRules, checked
from digest.text import clean
from digest.types import CleanArticle, RawArticle, TopicKind, TopicRef

ROOT = Path(__file__).parents[1]
T = datetime(2025, 9, 6, 17, tzinfo=UTC)
HOUR = timedelta(hours=1)


def found(rules: dict[str, list[str]], title: str, excerpt: str = "", **more: Any) -> list[str]:
    raw = RawArticle(url="https://x.example/1", title=title, title_is_html=False, excerpt_html=excerpt)
    made = clean(raw)
    assert isinstance(made, CleanArticle)
    given = TopicRules.of(checked({"keywords": rules, **more})).given(raw, made)
    return [f"{ref.kind}:{ref.slug}" for ref in given]


@pytest.mark.parametrize(
    ("word", "title", "named"),
    [
        ("Kenya", "KENYA votes", True),
        ("kenya", "In Kenya", True),
        ("Kenya", "Kenya’s vote", True),
        ("Kenya", "“Kenya”: a vote", True),
        ("Kenya", "A Kenyan votes", False),
        ("car", "A scar", False),
        ("car", "Cars and a car", True),
        ("car", "Car_park", True),
        ("climate change", "Climate  change", True),
        ("climate change", "climate-change talks", True),
        ("climate change", "A change of climate", False),
        ("COVID-19", "Covid 19 returns", True),
        ("COVID-19", "Covid 190", False),
        ("Straße", "AUF DER STRASSE", True),
        ("Côte d'Ivoire", "Co\u0302te d’Ivoire wins", True),
        ("Istanbul", "İstanbul", True),
        ("Ελλάδα", "ΕΛΛΆΔΑ", True),
        ("Москва", "В Москвау", False),
        ("हिन", "हिन्दी", False),  # a mark belongs to the letter before it
        ("हिन्दी", "आज हिन्दी दिवस", True),
        ("中国", "从中国经济看", True),
        ("ประเทศไทย", "ข่าวประเทศไทยวันนี้", True),
        ("C++", "C++ and C", True),
        ("C", "C++ alone", True),
        ("AI", "AI-driven", True),
        ("AI", "Said", False),
        ("5G", "15G", False),
        ("Ｋｅｎｙａ", "Kenya", True),
    ],
)
def test_whole_words_in_any_case_and_script(word: str, title: str, named: bool) -> None:
    assert found({"tag:X": [word]}, title) == (["tag:x"] if named else [])


def test_a_phrase_does_not_reach_from_the_headline_into_the_excerpt() -> None:
    assert found({"X": ["climate change"]}, "A new climate", "Change is here for all of us.") == []
    assert found({"X": ["change is"]}, "A new climate", "Change is here for all of us.") == ["category:x"]


def test_rules_are_in_order_and_defaults_only_where_there_is_no_category() -> None:
    rules = {"tag:Climate": ["climate"], "Africa": ["Kenya"], "category:Asia": ["Japan"]}
    assert found(rules, "Japan, Kenya and the climate") == ["tag:climate", "category:africa", "category:asia"]
    news = {"default_categories": "News, World"}
    assert found(rules, "The climate", **news) == ["tag:climate", "category:news", "category:world"]
    assert found(rules, "Kenya", **news) == ["category:africa"]
    own = RawArticle(url="https://x.example/1", title="x", topics=(TopicRef(TopicKind.CATEGORY, "a", "A"),))
    made = clean(own)
    assert isinstance(made, CleanArticle)
    assert TopicRules.of(checked(news)).given(own, made) == ()


def test_a_topic_that_is_named_by_its_slug_is_called_in_words() -> None:
    (by_slug, _), (by_name, _) = TopicRules.of({"keywords": {"climate-change": ["x"], "tag:AIDS": ["y"]}}).keywords
    assert (by_slug, by_name.name) == (TopicRef(TopicKind.CATEGORY, "climate-change", "Climate change"), "AIDS")


@given(st.text(max_size=40), st.text(max_size=60), st.text(max_size=60))
def test_a_word_is_found_where_it_stands_alone(word: str, before: str, after: str) -> None:
    """Whatever the word: between blanks it is found, and nothing breaks."""
    try:
        rules = TopicRules.of(checked({"keywords": {"X": [word]}}))
    except UsageError:
        return
    raw = RawArticle(url="https://x.example/1", title="x")
    made = CleanArticle(f"{before} {word} {after}", "", "", "", "", "", 0, None)
    assert [ref.slug for ref in rules.given(raw, made)] == ["x"] * bool(rules.keywords[0][1])


# ----------------------------------------------------------------------------- checked


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"timezon": "UTC"}, "did you mean 'timezone'"),
        ({"colour": "red"}, "options are timezone, url"),
        ({"timezone": "Europe/Berlyn"}, "no time zone 'Europe/Berlyn'"),
        ({"timezone": "../../etc/passwd"}, "no time zone"),
        ({"categories_are": "labels"}, "tag or category"),
        ({"split_categories": "perhaps"}, "neither true nor false"),
        ({"url": "news.example/:slug"}, "no web address"),
        ({"keywords": ["Africa"]}, "'Africa' has no words"),
        ({"keywords": ["=Kenya"]}, "'' is no topic"),
        ({"keywords": ["Africa= , "]}, "'Africa' has no words"),
        ({"keywords": ["Africa=-"]}, "'Africa' has no words"),
        ({"keywords": {"A": [str(n) for n in range(2_001)]}}, "more than 2,000 words"),
    ],
)
def test_what_is_wrong_is_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        checked(options)
    assert "\n" not in str(caught.value)


def test_texts_become_what_they_mean() -> None:
    given = {
        "keywords": ["Africa=Kenya, Ghana", "tag:Climate=climate change", "Africa=Mali,Kenya"], "timezone": "",
        "split_categories": "yes", "known_categories": "world, asia", "categories_are": "category",
    }  # fmt: skip
    kept = checked(given)
    assert kept == {
        "keywords": {"Africa": ["Kenya", "Ghana", "Mali"], "tag:Climate": ["climate change"]},
        "split_categories": True, "known_categories": ["world", "asia"], "categories_are": "category",
    }  # fmt: skip
    assert checked(json.loads(json.dumps(kept))) == kept


def test_every_option_has_its_row_in_the_docs() -> None:
    page = (ROOT / "docs" / "sources.md").read_text()
    assert [name for name in OPTIONS if f"| `{name}` |" not in page] == []


# ----------------------------------------------------------------------------- kept

RSS = """<rss version="2.0"><channel><title>Wire</title>{}</channel></rss>"""
ITEM = "<item><title>{}</title><link>https://x.example/{}</link><pubDate>Sat, 06 Sep 2025 {} </pubDate></item>"


def write(path: Path, *titles: str) -> str:
    path.write_text(RSS.format("".join(ITEM.format(title, n, "10:00:00") for n, title in enumerate(titles))))
    return str(path)


def told(database: Database) -> dict[str, list[str]]:
    with database.reading() as session:
        rows = catalogue.list_articles(session)
        return {row.title: [*row.categories, *(f"tag:{tag}" for tag in row.tags)] for row in rows}


def test_topics_by_words_stay_through_every_ingest(database: Database, tmp_path: Path, settings: Any) -> None:
    fetcher = Fetcher(settings.fetch)
    place = write(tmp_path / "feed.xml", "Kenya votes", "Weather")
    rules = {"keywords": ["Africa=Kenya", "tag:Votes=votes"], "default_categories": "News", "timezone": "Asia/Tokyo"}
    ingest.add_source(database, "wire", kind="feed", location=place, categories=["Site"], options=rules, at=T)
    assert [r.new for r in ingest.refresh(database, fetcher, at=T)] == [2]
    wanted = {"Weather": ["news", "site"], "Kenya votes": ["africa", "site", "tag:votes"]}
    assert told(database) == wanted
    with database.reading() as session:
        assert {row.published_at for row in catalogue.list_articles(session)} == {T.replace(hour=1)}
    for n, titles in enumerate((("Kenya votes", "Weather"), ("Kenya votes", "Weather", "More")), 1):
        write(tmp_path / "feed.xml", *titles)
        assert [r.changed for r in ingest.refresh(database, fetcher, at=T + n * HOUR, force=True)] == [0]
    assert {title: topics for title, topics in told(database).items() if title != "More"} == wanted
    assert ingest.check_source(database, fetcher, "wire").look.carries["categories"] == 3  # type: ignore[union-attr]


def test_another_rule_is_obeyed_at_the_next_poll(database: Database, tmp_path: Path, settings: Any) -> None:
    fetcher = Fetcher(settings.fetch)
    place = write(tmp_path / "feed.xml", "Kenya votes", "Weather")
    ingest.add_source(database, "wire", kind="feed", location=place, options={"keywords": ["A=Kenya"]}, at=T)
    ingest.refresh(database, fetcher, at=T)
    changed = ingest.change_source(database, "wire", options={"keywords": ["Rain=weather"], "timezone": ""})
    assert changed.options == {"keywords": {"Rain": ["weather"]}}
    [report] = ingest.refresh(database, fetcher, at=T + timedelta(minutes=1))  # due at once, and read whole
    assert (report.new, report.changed) == (0, 2)
    assert told(database) == {"Weather": ["rain"], "Kenya votes": []}


def test_a_source_that_moves_to_another_place_begins_anew(database: Database, tmp_path: Path, settings: Any) -> None:
    fetcher = Fetcher(settings.fetch)
    first, other = write(tmp_path / "a.xml", "One"), write(tmp_path / "b.xml", "Two")
    ingest.add_source(database, "wire", kind="feed", location=first, at=T)
    ingest.add_source(database, "two", kind="feed", location=other, at=T)
    with pytest.raises(UsageError, match="'two' reads"):
        ingest.change_source(database, "wire", location=other)
    with pytest.raises(UsageError, match="there is nothing at"):
        ingest.change_source(database, "wire", location="/nowhere")
    ingest.refresh(database, fetcher, at=T)
    third = write(tmp_path / "c.xml", "Three")
    ingest.change_source(database, "wire", location=third, categories=["World"])
    with database.reading() as session:
        row = catalogue.get_source(session, "wire")
        assert (row.location, row.imported_at, row.state, row.categories) == (third, None, {}, ["world"])
