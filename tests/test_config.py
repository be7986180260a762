"""Settings: layers, ranges, every problem at once, nothing secret shown."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digest.config import Settings, names, variable
from digest.db import parse_url
from digest.errors import ConfigError
from digest.rates import Limit, Rates

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where no config/digest.toml lies about."""
    monkeypatch.chdir(tmp_path)


def load(text: str = "", **environ: str) -> Settings:
    Path("given.toml").write_text(text)
    return Settings.load(Path("given.toml"), environ)


def problems(text: str = "", **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, **environ)
    return caught.value.problems


# ----------------------------------------------------------------------------- layers


def test_everything_has_a_working_default() -> None:
    settings = Settings.load(None, {})
    assert settings.live is False
    assert settings.database_url == f"sqlite:///{Path.cwd()}/var/digest.sqlite3"
    assert (settings.public_url, settings.web.port, settings.capture.port) == ("http://127.0.0.1:8000", 8000, 0)
    assert (settings.worker.lease_s, settings.worker.tick_s, settings.worker.window) == (10, 60, None)
    assert settings.fetch.allow_hosts == ()
    assert settings.all_relays()[0].password is None


def test_loading_makes_no_folder(tmp_path: Path) -> None:
    Settings.load(None, {"DIGEST_DATA_DIR": "new/place"})
    assert not (tmp_path / "new").exists()


def test_environment_wins_over_file_wins_over_defaults() -> None:
    settings = load("[smtp]\nport = 26\nconnections = 3\n", DIGEST_SMTP__PORT="27")
    assert (settings.smtp.port, settings.smtp.connections, settings.smtp.security) == (27, 3, "none")


def test_command_line_wins_over_the_environment() -> None:
    settings = Settings.load(None, {"DIGEST_DATA_DIR": "a"}, {"data_dir": "b"})
    assert settings.data_dir == Path.cwd() / "b"


def test_a_value_set_to_nothing_is_unset() -> None:
    assert load("[smtp]\nport = 26\n", DIGEST_SMTP__PORT="").smtp.port == 26


def test_the_file_is_the_one_given_else_the_variable_else_the_usual_place() -> None:
    Path("config").mkdir()
    for place, port in (("config/digest.toml", 1), ("named.toml", 2), ("given.toml", 3)):
        Path(place).write_text(f"web.port = {port}")
    assert Settings.load(Path("given.toml"), {"DIGEST_CONFIG": "named.toml"}).web.port == 3
    assert Settings.load(None, {"DIGEST_CONFIG": "named.toml"}).web.port == 2
    assert Settings.load(None, {}).web.port == 1


def test_a_list_in_the_environment_has_commas() -> None:
    given = load(DIGEST_FETCH__ALLOW_HOSTS="intranet.example.org, 10.1.2.3,[::1]").fetch.allow_hosts
    assert given == ("intranet.example.org", "10.1.2.3", "::1")


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://digest:hush@db/digest\n")
    settings = load(DIGEST_DATABASE__URL_FILE=str(tmp_path / "url"))
    assert settings.database_url == "postgresql://digest:hush@db/digest"


def test_every_variable_reaches_its_setting(tmp_path: Path) -> None:
    """The names of CONTRACT and of the reference, one by one."""
    for place in ("key", "pw"):
        (tmp_path / place).write_text("x" * 40)
    given = {
        "live": "true", "public_url": "https://news.example.org", "data_dir": str(tmp_path),
        "mail_domain": "mail.example.org", "secret_file": str(tmp_path / "key"), "templates_dir": str(tmp_path),
        "database.url": "postgresql://digest@db/digest", "smtp.host": "smtp.example.org", "smtp.port": "587",
        "smtp.security": "starttls", "smtp.username": "me", "smtp.password_file": str(tmp_path / "pw"),
        "smtp.ca_file": str(tmp_path / "pw"), "smtp.connections": "4", "smtp.order": "2",
        "smtp.weight": "3", "smtp.per_minute": "600", "relays": "{}", "rates.per_minute": "9000",
        "rates.domains": "gmail.com=600/20,*=/5", "rates.warm_up_since": "2026-12-01", "rates.warm_up_first": "50",
        "rates.warm_up_growth": "2.0", "dkim.keys": "s=/k.pem",
        "bounces.read": "true", "bounces.protocol": "pop", "bounces.host": "pop.example.org",
        "bounces.port": "1995", "bounces.security": "starttls", "bounces.username": "bounces",
        "bounces.password_file": str(tmp_path / "pw"), "bounces.folder": "bounces", "bounces.every_s": "60",
        "hooks.secret_file": str(tmp_path / "key"), "hooks.sns_topics": "arn:aws:sns:eu-west-1:123456789012:bounces",
        "capture.host": "::1", "capture.port": "2525", "web.host": "0.0.0.0",
        "web.port": "80", "fetch.timeout_s": "3.5", "fetch.max_bytes": "2000", "fetch.allow_hosts": "a.example",
        "feeds.hubs": "https://hub.example/",
        "feeds.unready_per_minute": "60",
        "worker.lease_s": "5", "worker.tick_s": "30", "worker.window": "70",
            "worker.refused_after": "50", "worker.refused_share": "0.4", "retention.months": "6",
            "retention.captured_days": "7",
    }  # fmt: skip
    assert list(given) == names()
    shown = load(**{variable(name): value for name, value in given.items()}).shown()
    for name, value in given.items():
        at = shown
        for key in name.split("."):
            at = at[key]
        said = ",".join(at) if isinstance(at, list) else at
        assert str(said).lower() == str(float(value) if isinstance(said, float) else value), name


# ----------------------------------------------------------------------------- complaints


def test_all_problems_are_told_at_once_with_their_place() -> None:
    told = problems(
        'lvie = true\npublic_url = "news.example.org"\n[smtp]\nprot = 25\n[wbe]\nport = 1\n',
        DIGEST_SMTP__PORT="99999",
        DIGEST_WEB__PORT="eighty",
        DIGEST_SMTP_HOST="x",
        DIGEST_DATABASE__URL="mysql://a:hush@b/c",
    )
    for where, what in (
        ("lvie in given.toml", "did you mean live?"),
        ("smtp.prot in given.toml", "did you mean smtp.port?"),
        ("wbe in given.toml", "did you mean web?"),
        ("DIGEST_SMTP_HOST", "did you mean DIGEST_SMTP__HOST?"),
        ("public_url in given.toml", "https://news.example.org"),
        ("DIGEST_SMTP__PORT", "65535"),
        ("DIGEST_WEB__PORT", "integer"),
        ("DIGEST_DATABASE__URL", "sqlite:///PATH"),
    ):
        assert [p for p in told if p.startswith(f"{where}: ") and what in p], (where, told)
    assert len(told) == 8
    assert "hush" not in " ".join(told)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('mail_domain = "192.0.2.1"', "domain is wanted"),
        ('mail_domain = "a b"', "no host name"),
        ('public_url = "https://a.example/?x=1"', "no http"),
        ('public_url = "https://me@a.example"', "no http"),
        ('public_url = "https://a.example:99999"', "no http"),
        ('secret_file = "nowhere"', "No such file"),
        ('templates_dir = "nowhere"', "not a folder"),
        ("smtp = 25", r"write \[smtp\]"),
        ('[smtp]\nsecurity = "ssl"', "starttls"),
        ("[smtp]\nconnections = 0", "greater than or equal to 1"),
        ('[smtp]\nusername = "me"', "password_file is not"),
        ('[relays.backup]\nhots = "b.example"\nhost = "a.example"', r"relays in .*backup.hots: .*did you mean host"),
        ("[relays.backup]\nport = 25", r"backup.host: Field required"),
        ('[relays.smtp]\nhost = "a.example"', "no name for a relay"),
        (
            '[relays.b]\nhost = "a.example"\nsecurity = "tls"\nusername = "me"',
            r"relays.b.username is set but relays.b.password_file is not",
        ),
        ("relays = 3", "dictionary"),
        ('[rates]\ndomains = ["gmail.com=0"]', "DOMAIN=A MINUTE/AT ONCE"),
        ('[rates]\ndomains = ["gmail.com"]', "DOMAIN=A MINUTE/AT ONCE"),
        ('[rates]\ndomains = ["a b=3"]', "DOMAIN=A MINUTE/AT ONCE"),
        ('[rates]\ndomains = ["gmail.com=3", "Gmail.com=/4"]', "names a domain twice"),
        ('[rates]\nwarm_up_since = "soon"', "date"),
        ("[capture]\nport = -1", "greater than or equal to 0"),
        ("[worker]\nlease_s = 0", "greater than or equal to 1"),
        ('[fetch]\nallow_hosts = ["http://a.example"]', "without http://"),
        ("live = ", "is not TOML"),
        ("nonsense = 1", "defaults.toml lists them all"),
    ],
)
def test_a_value_that_cannot_be_is_one_sentence(text: str, says: str) -> None:
    told = problems(text)
    assert len(told) == 1
    assert re.search(says, told[0]), told
    assert "\n" not in told[0]


def test_a_password_never_travels_readable(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("hush\n")
    text = f'[smtp]\nhost = "smtp.example.org"\nusername = "me"\npassword_file = "{tmp_path}/pw"\n'
    assert "starttls or tls" in problems(text)[0]
    assert load(text + 'security = "tls"').all_relays()[0].password == "hush"


def test_a_further_relay_is_as_the_first_but_for_what_it_says_and_who_signs_in(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("hush\n")
    settings = load(
        f'[smtp]\nhost = "one.example"\nport = 587\nsecurity = "starttls"\nusername = "me"\n'
        f'password_file = "{tmp_path}/pw"\nper_minute = 60\norder = 2\n[relays.two]\nhost = "two.example"\nweight = 5\n'
        '[relays.three]\nhost = "three.example"\norder = 1\n'
    )
    three, one, two = settings.all_relays()
    assert (one.host, one.username, one.password, one.per_minute) == ("one.example", "me", "hush", 60)
    assert (two.host, two.port, two.security, two.weight, two.order) == ("two.example", 587, "starttls", 5, 2)
    assert (two.name, two.username, two.password, two.per_minute) == ("two", None, None, None)
    assert three.name == "three"
    told = load(DIGEST_RELAYS='{"two": {"host": "two.example", "port": 26}}').all_relays()
    assert [(relay.name, relay.port) for relay in told] == [("smtp", 25), ("two", 26)]


def test_rates_are_read_by_domain() -> None:
    rates = load('[rates]\ndomains = ["Gmail.com=600/20", "bücher.example=/5", "*=300"]').mail_rates()
    assert rates.of("gmail.com") == Limit(600, 20)
    assert rates.of("xn--bcher-kva.example") == Limit(None, 5)
    assert rates.of("other.example") == Limit(300)
    assert load().mail_rates() == Rates()


def test_a_password_is_no_setting() -> None:
    assert "DIGEST_SMTP__PASSWORD_FILE" in problems(DIGEST_SMTP__PASSWORD="hush")[0]


def test_missing_files_are_named() -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read"):
        Settings.load(Path("gone.toml"), {})
    assert "DIGEST_DATABASE__URL_FILE" in problems(DIGEST_DATABASE__URL_FILE="gone")[0]


@given(st.text(max_size=40), st.sampled_from(names()))
def test_no_value_makes_a_traceback(value: str, name: str) -> None:
    told: list[str] = []
    try:
        json.dumps(Settings.load(None, {variable(name): value}).shown())
    except ConfigError as e:
        told = e.problems
    assert all(p.startswith((variable(name), name)) for p in told)


@given(st.dictionaries(st.sampled_from(["live", "smtp", "x", "web"]), st.integers() | st.text() | st.lists(st.none())))
def test_no_file_makes_a_traceback(tree: dict[str, object]) -> None:
    Path("any.toml").write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in tree.items()))
    with contextlib.suppress(ConfigError):
        Settings.load(Path("any.toml"), {})


# ----------------------------------------------------------------------------- readings


@pytest.mark.parametrize(
    ("given", "domain"),
    [
        ({}, "localhost.localdomain"),
        ({"DIGEST_PUBLIC_URL": "https://News.Example.org:8443/x"}, "news.example.org"),
        ({"DIGEST_PUBLIC_URL": "http://[::1]:8000"}, "localhost.localdomain"),
        ({"DIGEST_PUBLIC_URL": "http://localhost:8000"}, "localhost.localdomain"),
        ({"DIGEST_PUBLIC_URL": "https://a.example", "DIGEST_MAIL_DOMAIN": "bücher.example"}, "xn--bcher-kva.example"),
    ],
)
def test_mail_domain(given: dict[str, str], domain: str) -> None:
    settings = Settings.load(None, given)
    assert settings.mail_domain_for() == settings.all_relays()[0].helo == domain


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://digest:hush@db.example.org/digest",
        "postgresql://digest:hu@sh:hush@db/digest",
        "postgresql:///digest?host=/run/pg&password=hush",
    ],
)
def test_no_secret_is_shown(url: str, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("hush")
    (tmp_path / "key").write_text("hush")
    settings = load(
        '[smtp]\nusername = "me"',
        DIGEST_DATABASE__URL=url,
        DIGEST_SMTP__PASSWORD_FILE=str(tmp_path / "pw"),
        DIGEST_SECRET_FILE=str(tmp_path / "key"),
    )
    assert "hush" not in json.dumps(settings.shown())
    assert settings.shown()["database"]["url"].startswith("postgresql://")


def test_a_data_dir_with_odd_letters_is_one_path(tmp_path: Path) -> None:
    settings = Settings.load(None, {"DIGEST_DATA_DIR": str(tmp_path / "a b%20?ü#")})
    assert parse_url(settings.database_url).database == str(tmp_path / "a b%20?ü#" / "digest.sqlite3")


# ----------------------------------------------------------------------------- the files themselves


def test_the_reference_names_every_setting_and_no_other() -> None:
    """Active or commented out, under its table, in the order of the tree."""
    table, found = "", []
    for line in (ROOT / "config/defaults.toml").read_text().splitlines():
        text = line.removeprefix("# ")
        if line.startswith("["):
            table = line.strip("[]") + "."
        elif " = " in text and text.split(" = ")[0].isidentifier():
            found.append(table + text.split(" = ")[0])
    assert sorted(found) == sorted(names())


def test_the_commented_examples_of_the_reference_are_valid(tmp_path: Path) -> None:
    text = (ROOT / "config/defaults.toml").read_text()
    lines = [
        line.removeprefix("# ") if line.startswith("# ") and line[2:].split(" = ")[0].isidentifier() else line
        for line in text.splitlines()
    ]
    tree = "\n".join(lines)
    secrets = ("digest", "smtp", "bounces", "hooks")
    for path in (*(f"/run/secrets/{name}" for name in secrets), "/etc/digest/relay-ca.pem"):
        tree = tree.replace(f'"{path}"', f'"{tmp_path}/given.toml"')
    tree = tree.replace("/etc/digest/templates", str(tmp_path))
    assert load(tree).worker.window == 50


def test_the_example_file_is_valid_but_for_its_password(tmp_path: Path) -> None:
    text = (ROOT / "config/digest.example.toml").read_text()
    assert tomllib.loads(text)["smtp"]["password_file"]
    told = problems(text)
    assert len(told) == 1
    assert "smtp.password_file" in told[0]


def test_the_environment_of_this_process_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "DIGEST_WEB__PORT", "1")
    assert Settings.load(None, {}).web.port == 8000


def test_the_mailbox_of_bounces_is_whole_or_none(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("hush\n")
    assert load().bounce_mailbox() is None
    assert not load().reads_bounces
    assert problems("bounces.host = 'mail.example.org'") == [
        "bounces.host is set but not who reads there; set bounces.username and bounces.password_file"
    ]
    box = f"[bounces]\nhost = 'mail.example.org'\nusername = 'b'\npassword_file = '{tmp_path}/pw'\n"
    place = load(box).bounce_mailbox()
    assert place is not None
    assert (place.protocol, place.port, place.security, place.password) == ("imap", 993, "tls", "hush")
    assert load(box).reads_bounces
    assert load(box + "protocol = 'pop'\nsecurity = 'starttls'\n").bounce_mailbox().port == 110  # type: ignore[union-attr]
    assert "would travel readable" in problems(box + "security = 'none'\n")[0]
