"""A folder of Markdown as Hugo, Jekyll and Eleventy write it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digest import catalogue, ingest
from digest.db import Database
from digest.errors import SourceError
from digest.fetch import Fetcher
from digest.sources import frontmatter
from digest.sources.frontmatter import FrontMatterError
from digest.sources.markdown import Markdown
from digest.text import clean
from digest.types import CleanArticle, Image, RawArticle, Skipped

SITE = "https://news.example/:year/:slug/"
FRONT = "---\ntitle: A headline\ndate: 2025-04-02\n"


@pytest.fixture
def fetcher(settings: Any) -> Fetcher:
    return Fetcher(settings.fetch)


@pytest.fixture
def items(tmp_path: Path, fetcher: Fetcher) -> Callable[..., dict[str, RawArticle | Skipped]]:
    """What is made of files: by name."""

    def read(files: dict[str, str], **options: Any) -> dict[str, RawArticle | Skipped]:
        folder = tmp_path / "site"
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        found = Markdown(str(folder), {"url": SITE, **options}, fetcher).fetch({}).items
        return {(i.native_id or "") if isinstance(i, RawArticle) else i.item: i for i in found}

    return read


def told(article: Any) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {"category": [], "tag": []}
    for ref in article.topics:
        kinds[ref.kind].append(ref.name)
    return kinds


FORMS = {
    "hugo-yaml": '---\ntitle: "Salt: a history"\ndate: 2025-04-02T10:17:09-04:00\nlastmod: 2025-05-01\nslug: salt\n'
    'authors: ["Ann Author"]\ncategories: [World]\ntags: [no, 2024]\nsummary: In short.\nimage: /a.jpg\n---\n'
    "Text *here*.",
    "hugo-toml": '+++\ntitle = "Salt: a history"\ndate = 2025-04-02T10:17:09-04:00\nlastmod = 2025-05-01\n'
    'slug = "salt"\nauthors = ["Ann Author"]\ncategories = ["World"]\ntags = ["no", "2024"]\nsummary = "In short."\n'
    'image = "/a.jpg"\n'
    "+++\nText *here*.",
    "hugo-json": '{"title": "Salt: a history", "date": "2025-04-02T10:17:09-04:00", "lastmod": "2025-05-01",\n'
    '"slug": "salt", "authors": ["Ann Author"], "categories": ["World"], "tags": ["no", 2024],\n'
    '"summary": "In short.", "image": "/a.jpg"}\n\nText *here*.',
    "eleventy": '\n\n---json\n{"title": "Salt: a history", "date": "2025-04-02 10:17:09 -0400", '
    '"updated": "2025-05-01", "slug": "salt", "author": {"name": "Ann Author"}, "category": "World",\n'
    '"tags": ["no", "2024"], "description": "In short.", "cover": {"image": "/a.jpg"}}\n---\nText *here*.',
}


@pytest.mark.parametrize("form", FORMS)
def test_front_matter_says_the_same_in_every_form(form: str, items: Any) -> None:
    [article] = items({"a.md": FORMS[form]}).values()
    assert (article.title, article.title_is_html) == ("Salt: a history", False)
    assert article.published_at == datetime(2025, 4, 2, 14, 17, 9, tzinfo=UTC)
    assert article.updated_at == datetime(2025, 5, 1, tzinfo=UTC)
    assert article.url == "https://news.example/2025/salt/"
    assert article.authors == ("Ann Author",)
    assert told(article) == {"category": ["World"], "tag": ["no", "2024"]}
    assert article.excerpt_html or article.description == "In short."
    assert article.image == Image("/a.jpg")
    assert article.body_html == "<p>Text <em>here</em>.</p>\n"


def test_one_bad_file_stops_nothing(items: Any) -> None:
    found = items({
        "bad-yaml.md": "---\ntitle: Foo: bar\n---\nx", "open.md": "---\ntitle: Foo\n\nx",
        "bare.md": "# No front matter",
        "list.md": "---\n- a\n---\n", "bad-toml.md": "+++\ntitle = \n+++\n", "bytes.md": "\x00\x01",
        "good.md": f"{FRONT}---\nx", "no-date.md": "---\ntitle: T\ndate: 2015-13-02\n---\nx",
        "_index.md": f"{FRONT}---\n",
        "odd-hours.md": "---\ntitle: T\ndate: 2015-04-02 1:00:19 -0400\n---\n", "page.html": "<p>no article</p>",
    })  # fmt: skip
    reasons = {name: i.reason for name, i in found.items() if isinstance(i, Skipped)}
    assert reasons == {
        "bad-yaml.md": "bad_front_matter", "open.md": "bad_front_matter", "bare.md": "no_front_matter",
        "list.md": "bad_front_matter", "bad-toml.md": "bad_front_matter", "bytes.md": "no_front_matter",
    }  # fmt: skip
    assert "line 1: mapping values are not allowed" in found["bad-yaml.md"].detail
    assert isinstance(found["good.md"], RawArticle)
    assert found["no-date.md"].published_at is None
    assert set(found) - set(reasons) == {"good.md", "no-date.md", "odd-hours.md"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("draft: true", "status_draft"), ("draft: yes", "status_draft"), ("published: false", "status_draft"),
        ("expirydate: 2020-01-01", "expired"), ("draft: false", None), ("published: true", None), ("draft:", None),
        ("expirydate: 2020-13-45", None), ("permalink: false", "status_draft"), ("permalink: /x/", None),
        ("eleventyExcludeFromCollections: true", "status_draft"),
    ],
)  # fmt: skip
def test_what_is_not_on_the_site_is_left_out(line: str, reason: str | None, items: Any) -> None:
    [item] = items({"a.md": f"{FRONT}{line}\n---\nx"}).values()
    assert (item.reason if isinstance(item, Skipped) else None) == reason
    assert item.native_id == "a.md"  # so that one that was there is taken out


def test_an_article_is_as_new_as_its_appearance(items: Any) -> None:
    """Hugo shows an article no earlier than its publishDate, however it is dated."""
    front = "---\ntitle: T\ndate: 2025-04-02\npublishDate: {}\n---\n"
    found = items({"later.md": front.format("2025-05-01"), "earlier.md": front.format("2025-03-01")})
    assert found["later.md"].published_at == datetime(2025, 5, 1, tzinfo=UTC)
    assert found["earlier.md"].published_at == datetime(2025, 4, 2, tzinfo=UTC)


def test_a_description_stands_back_behind_a_summary(items: Any) -> None:
    found = items({
        "both.md": f"{FRONT}description: For search engines.\nsummary: For readers.\n---\nx",
        "one.md": f"{FRONT}seo:\n  description: For search engines.\n---\nx",
    })  # fmt: skip
    assert [clean(found[name]).excerpt for name in ("both.md", "one.md")] == ["For readers.", "For search engines."]


def test_shortcodes_go_and_their_text_stays(items: Any) -> None:
    body = (
        "{{< figure src=a.jpg >}}One {% include x.html %}two {{ site.title }}three.\n\n"
        "{% highlight py %}four{% endhighlight %}\n\n{{% note %}}\nFive\n{{% /note %}}"
    )
    [article] = items({"a.md": f"{FRONT}---\n{body}"}).values()
    made = clean(article)
    assert isinstance(made, CleanArticle)
    assert made.body_text.split() == ["One", "two", "three.", "four", "Five"]


def test_links_are_relative_to_the_article(items: Any) -> None:
    [article] = items({"a.md": f"{FRONT}---\n[x](../b/) ![p](/i.png)"}).values()
    made = clean(article)
    assert isinstance(made, CleanArticle)
    assert 'href="https://news.example/2025/b/"' in made.body_html
    assert 'src="https://news.example/i.png"' in made.body_html


def test_jekyll_keeps_the_date_in_the_name(items: Any) -> None:
    found = items({"_posts/2021-9-1-old-news.md": "---\ntitle: T\n---\n", "2021-13-41-x.md": "---\ntitle: T\n---\n"})
    article = found["_posts/2021-9-1-old-news.md"]
    assert article.published_at == datetime(2021, 9, 1, tzinfo=UTC)
    assert article.url == "https://news.example/2021/old-news/"
    assert found["2021-13-41-x.md"].published_at is None


@pytest.mark.parametrize(
    ("config", "text", "name", "url"),
    [
        ({"hugo.toml": 'baseURL = "https://h.example/"'}, FRONT, "news/a.md", "https://h.example/news/a/"),
        ({"hugo.toml": 'baseURL = "https://h.example/"'}, FRONT, "news/a/index.md", "https://h.example/news/a/"),
        ({"hugo.toml": 'baseURL = "https://h.example/"'}, f"{FRONT}url: /b/\n", "news/a.md", "https://h.example/b/"),
        ({"_config.yml": "url: https://j.example\nbaseurl: /blog"}, "---\ntitle: T\n", "2021-09-01-a.md",
         "https://j.example/blog/2021/09/01/a.html"),
        ({"_config.yml": "url: https://j.example\npermalink: /:year/:title/"}, FRONT, "a.md", "https://j.example/2025/a/"),
        ({"_config.yml": "url: https://j.example\npermalink: pretty"}, FRONT, "a.md", "https://j.example/2025/04/02/a/"),
        ({"_config.yml": "url: https://j.example"}, f"{FRONT}permalink: /:year/x/:title.html\n", "a.md",
         "https://j.example/2025/x/a.html"),
        ({"hugo.toml": 'baseURL = "https://h.example/"'}, FRONT, "content/news/a.md", "https://h.example/news/a/"),
        ({"hugo.toml": 'baseURL = "https://h.example/"\n[permalinks]\nnews = "/:year/:month/:slug/"'}, FRONT,
         "content/news/a.md", "https://h.example/2025/04/a-headline/"),
        ({"hugo.toml": 'baseURL = "https://h.example/"\n[permalinks.page]\nnews = "/n/:slugorfilename/"'}, FRONT,
         "news/a.md", "https://h.example/n/a/"),
        ({"hugo.toml": 'baseURL = "https://h.example/"\n[permalinks]\nnews = "/:year/"'}, FRONT, "blog/a.md",
         "https://h.example/blog/a/"),
        ({}, f"{FRONT}permalink: https://e.example/x\n", "a.md", "https://e.example/x"),
        ({}, FRONT, "a.md", None),
    ],
)  # fmt: skip
def test_the_site_says_where_its_articles_are(
    config: dict[str, str], text: str, name: str, url: str | None, items: Any
) -> None:
    found = items({**config, name: f"{text}---\nx"}, url="")
    assert found[name].url == url


def test_which_field_holds_topics_is_an_option(items: Any) -> None:
    text = f"{FRONT}topics: [Salt]\nsubjects: [Tea]\ntags: Water, Fire\n---\n"
    assert told(items({"a.md": text})["a.md"]) == {"category": ["Salt"], "tag": ["Water", "Fire"]}
    other = items({"a.md": text}, categories_from=["subjects"], tags_from=["topics"])
    assert told(other["a.md"]) == {"category": ["Tea"], "tag": ["Salt"]}


def test_a_file_that_goes_takes_its_article_with_it(tmp_path: Path, database: Database, fetcher: Fetcher) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.md").write_text(f"---\ntitle: {name}\ndate: 2025-04-02\n---\nx")
    at = datetime(2025, 4, 3, tzinfo=UTC)
    ingest.add_source(database, "site", kind="markdown", location=str(folder), options={"url": SITE}, at=at)
    assert [(r.new, r.removed) for r in ingest.refresh(database, fetcher, at=at, force=True)] == [(3, 0)]
    (folder / "a.md").unlink()
    (folder / "b.md").write_text("---\ntitle: b\ndraft: true\n---\n")
    assert [(r.new, r.removed) for r in ingest.refresh(database, fetcher, at=at, force=True)] == [(0, 2)]
    with database.reading() as session:
        assert [article.title for article in catalogue.list_articles(session)] == ["c"]


def test_an_anchor_bomb_is_a_list_of_few_words(items: Any) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    found = items(
        {"a.md": FRONT + "\n".join(lines) + "\ntags: [*a8, ok]\nauthor: *a8\n---\nx", "b.md": f"{FRONT}---\n"}
    )
    assert set(found) == {"a.md", "b.md"}
    assert len(str(found)) < 20_000


@settings(max_examples=200)
@given(
    st.text(max_size=200),
    st.sampled_from(["", "---\n", "+++\n", "{", "---json\n"]),
    st.sampled_from(["", "---\n", "+++\n"]),
)
def test_any_text_is_split_or_refused_in_one_line(text: str, before: str, after: str) -> None:
    try:
        found = frontmatter.split(before + text + "\n" + after)
    except FrontMatterError as e:
        found = ({}, str(e).replace("\n", "BROKEN"))
    assert found is None or (isinstance(found[0], dict) and "BROKEN" not in found[1])


def test_an_empty_folder_is_one_sentence(tmp_path: Path, fetcher: Fetcher) -> None:
    with pytest.raises(SourceError, match="no Markdown file"):
        Markdown(str(tmp_path), {}, fetcher).fetch({})
