"""Settings: what starting needs, from defaults.toml < a file < the environment. Finds every problem, then complains.

Digests, sources, readers and brand are no settings: they live in the database, so that every machine knows them.
Reads files that settings name; makes none, and no folder.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from digest.errors import ConfigError
from digest.paths import shipped
from digest.rates import WARM, Limit, Rates, WarmUp
from digest.types import MailPlace, Relay

_PREFIX = "DIGEST_"
_NOT_SETTINGS = frozenset({"DIGEST_CONFIG", "DIGEST_DEBUG"})  # where the file is; tracebacks wanted
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")

# ----------------------------------------------------------------------------- kinds of value


def _host(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value.strip("[]")))
    except ValueError:
        pass
    try:
        ascii_form = value.strip().rstrip(".").encode("idna").decode().lower()
    except UnicodeError:
        ascii_form = ""
    if not _DOMAIN.fullmatch(ascii_form) or len(ascii_form) > 253:
        raise ValueError("is no host name or address; write it without http:// and without a port")
    return ascii_form


def _domain(value: str) -> str:
    if _is_address(name := _host(value)):
        raise ValueError("is an address; a domain is wanted, like news.example.org")
    return name


def _public_url(value: str) -> str:
    parts = urlsplit(value)
    try:
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.query or parts.fragment or parts.username is not None or re.search(r"\s", value):
        raise ValueError("is no http(s) address of a site, like https://news.example.org")
    return value.rstrip("/")


def _hub_url(value: str) -> str:
    parts = urlsplit(value)
    try:
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and len(value) <= 500
    except ValueError:
        sound = False
    if not sound or parts.fragment or parts.username is not None or not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("is no http(s) address of a hub, like https://hub.example.org/")
    return value


def _database_url(value: str) -> str:
    if not re.match(r"sqlite:///.|postgres(ql)?(\+psycopg)?://", value):
        raise ValueError("is not a database URL; use sqlite:///PATH or postgresql://…")
    return value


def _data_dir(value: Path) -> Path:
    return value.expanduser().absolute()


def _readable(value: Path) -> Path:
    try:
        with (path := value.expanduser().absolute()).open("rb"):
            return path
    except OSError as e:
        raise ValueError(f"cannot be read: {e.strerror}") from None


def _folder(value: Path) -> Path:
    if not (path := value.expanduser().absolute()).is_dir():
        raise ValueError("is not a folder")
    return path


def _sns_topic(value: str) -> str:
    if not re.fullmatch(r"arn:aws(-[a-z]+)*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}", value):
        raise ValueError("is no topic of SNS; write it as arn:aws:sns:eu-west-1:123456789012:bounces")
    return value


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether mail and passwords to that host stay on this machine."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _split(value: object) -> object:
    """The environment gives a list as one text with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _dkim_key(value: str) -> str:
    selector, equals, file = value.partition("=")
    if not (equals and selector.strip() and file.strip()):
        raise ValueError(f"{value!r} should be SELECTOR=FILE, like s2027=/etc/digest/dkim/s2027.pem")
    return value


def _domain_rate(value: str) -> str:
    found = re.fullmatch(r"\s*(\*|[^=\s]+)\s*=\s*(\d*)\s*(?:/\s*(\d*))?\s*", value)
    if not found or not (found[2] or found[3]) or 0 in {int(n) for n in found.groups()[1:] if n}:
        raise ValueError(f"{value!r} should be DOMAIN=A MINUTE/AT ONCE, like gmail.com=600/20, gmail.com=600 or *=/10")
    name = found[1] if found[1] == "*" else _domain(found[1])
    return f"{name}={found[2]}/{found[3] or ''}"


def _json(value: object) -> object:
    """The environment gives a table as one text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError('is not JSON; write {"NAME": {"host": "…", "port": 25}}') from None


def _relay_name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", value) or value == "smtp":
        raise ValueError("is no name for a relay; use small letters, digits and hyphens, and not smtp")
    return value


Host = Annotated[str, AfterValidator(_host)]
HubUrl = Annotated[str, AfterValidator(_hub_url)]
Port = Annotated[int, Field(ge=1, le=65535)]
PortOrFree = Annotated[int, Field(ge=0, le=65535)]
Topic = Annotated[str, AfterValidator(_sns_topic)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]

# ----------------------------------------------------------------------------- the tree


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatabaseSettings(Table):
    url: Annotated[str, AfterValidator(_database_url)] | None = None


Connections = Annotated[int, Field(ge=1, le=200)]
Order = Annotated[int, Field(ge=1, le=99)]
Weight = Annotated[int, Field(ge=1, le=1000)]
PerMinute = Annotated[int, Field(ge=1, le=10_000_000)]


class SmtpSettings(Table):
    host: Host
    port: Port
    security: Literal["none", "starttls", "tls"]
    username: str | None = None
    password_file: ReadableFile | None = None
    ca_file: ReadableFile | None = None
    connections: Connections
    order: Order
    weight: Weight
    per_minute: PerMinute | None = None


class RelaySettings(Table):
    """A further relay. What is not said is as [smtp] says, but for who signs in and where."""

    host: Host
    port: Port | None = None
    security: Literal["none", "starttls", "tls"] | None = None
    username: str | None = None
    password_file: ReadableFile | None = None
    ca_file: ReadableFile | None = None
    connections: Connections | None = None
    order: Order | None = None
    weight: Weight | None = None
    per_minute: PerMinute | None = None


class RatesSettings(Table):
    per_minute: PerMinute | None = None
    domains: Annotated[tuple[Annotated[str, AfterValidator(_domain_rate)], ...], BeforeValidator(_split)]
    warm_up_since: date | None = None
    warm_up_first: Annotated[int, Field(ge=1, le=WARM)]
    warm_up_growth: Annotated[float, Field(ge=1, le=10)]


class DkimSettings(Table):
    keys: Annotated[tuple[Annotated[str, AfterValidator(_dkim_key)], ...], BeforeValidator(_split)]


class BouncesSettings(Table):
    read: bool
    protocol: Literal["imap", "pop"]
    host: Host | None = None
    port: Port | None = None
    security: Literal["none", "starttls", "tls"]
    username: str | None = None
    password_file: ReadableFile | None = None
    folder: Annotated[str, Field(min_length=1, max_length=200)]
    every_s: Annotated[float, Field(ge=10, le=86_400)]


class HooksSettings(Table):
    secret_file: ReadableFile | None = None
    sns_topics: Annotated[tuple[Topic, ...], BeforeValidator(_split)]


class CaptureSettings(Table):
    host: Host
    port: PortOrFree


class WebSettings(Table):
    host: Host
    port: PortOrFree


class FetchSettings(Table):
    timeout_s: Annotated[float, Field(gt=0, le=600)]
    max_bytes: Annotated[int, Field(ge=1024)]
    allow_hosts: Annotated[tuple[Host, ...], BeforeValidator(_split)]


class FeedsSettings(Table):
    hubs: Annotated[tuple[HubUrl, ...], BeforeValidator(_split)]
    unready_per_minute: Annotated[int, Field(ge=0, le=100_000)]


class WorkerSettings(Table):
    lease_s: Annotated[float, Field(ge=1, le=600)]
    tick_s: Annotated[float, Field(ge=1, le=3600)]
    window: Annotated[int, Field(ge=1, le=10_000)] | None = None
    refused_after: Annotated[int, Field(ge=1)]
    refused_share: Annotated[float, Field(gt=0, le=1)]


class Retention(Table):
    months: Annotated[int, Field(ge=1, le=1200)]
    captured_days: Annotated[int, Field(ge=1, le=3650)]


class Settings(Table):
    """All of it. No default stands here: they are in config/defaults.toml, which is the reference too."""

    live: bool
    public_url: Annotated[str, AfterValidator(_public_url)]
    data_dir: Annotated[Path, AfterValidator(_data_dir)]
    mail_domain: Annotated[str, AfterValidator(_domain)] | None = None
    secret_file: ReadableFile | None = None
    templates_dir: Annotated[Path, AfterValidator(_folder)] | None = None
    database: DatabaseSettings = DatabaseSettings()
    smtp: SmtpSettings
    relays: Annotated[dict[Annotated[str, AfterValidator(_relay_name)], RelaySettings], BeforeValidator(_json)]
    rates: RatesSettings
    dkim: DkimSettings
    bounces: BouncesSettings
    hooks: HooksSettings
    capture: CaptureSettings
    web: WebSettings
    fetch: FetchSettings
    feeds: FeedsSettings
    worker: WorkerSettings
    retention: Retention

    @classmethod
    def load(
        cls, path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object] | None = None
    ) -> Settings:
        """Read all layers. *overrides*: dotted names from the command line, which win over everything.

            defaults.toml < path, else $DIGEST_CONFIG, else ./config/digest.toml if there < environment < overrides

        Raises ConfigError with all problems at once.
        """
        layers = _Layers()
        layers.add_file(shipped("config") / "defaults.toml")
        layers.add_file(path or _file_of(environ))
        layers.add_environment(environ)
        layers.add({key: (value, key) for key, value in (overrides or {}).items()})
        try:
            settings = cls(**layers.tree())
        except ValidationError as e:
            raise ConfigError([*layers.problems, *layers.told(e)]) from None
        if problems := [*layers.problems, *settings._contradictions()]:
            raise ConfigError(problems)
        return settings

    def _contradictions(self) -> Iterator[str]:
        for relay in ("smtp", *(f"relays.{name}" for name in self.relays)):
            yield from self._about_relay(relay)
        if len({domain.partition("=")[0] for domain in self.rates.domains}) < len(self.rates.domains):
            yield "rates.domains names a domain twice; leave one of them out"
        selectors = [selector for selector, _ in self.dkim_keys()]
        if len(set(selectors)) < len(selectors):
            yield "dkim.keys names a selector twice; each key has its own, or receivers look in the wrong place"
        yield from self._about_bounces()

    def _about_relay(self, table: str) -> Iterator[str]:
        relay = self._relay(table.removeprefix("relays."))
        signs_in = self.relays.get(relay.name, self.smtp)
        if signs_in.username and not signs_in.password_file:
            yield (
                f"{table}.username is set but {table}.password_file is not; put the password into a file and name it "
                "there"
            )
        if signs_in.password_file and not signs_in.username:
            yield f"{table}.password_file is set but {table}.username is not; set both or neither"
        if signs_in.username and relay.security == "none" and not is_loopback(relay.host):
            yield f"{table}.security is none, so the password would travel readable; use starttls or tls"

    def _about_bounces(self) -> Iterator[str]:
        box = self.bounces
        if box.host and not (box.username and box.password_file):
            yield "bounces.host is set but not who reads there; set bounces.username and bounces.password_file"
        if box.host and box.security == "none" and not is_loopback(box.host):
            yield "bounces.security is none, so the password would travel readable; use starttls or tls"

    @property
    def database_url(self) -> str:
        return self.database.url or f"sqlite:///{quote(str(self.data_dir), safe='/ ')}/digest.sqlite3"

    def all_relays(self) -> list[Relay]:
        """Where live mail goes, in the order in which they are tried. Reads the password files anew, so that a changed
        password needs no restart."""
        relays = [self._with_password(self._relay(name)) for name in ("smtp", *self.relays)]
        return sorted(relays, key=lambda relay: relay.order)

    def _relay(self, name: str) -> Relay:
        """One relay by its name, as it is set up; without its password."""
        given = self.smtp.model_dump()
        if name in self.relays:
            own = self.relays[name].model_dump()
            unset = (key for key, value in own.items() if value is None)
            mine = {"username": None, "password_file": None, "per_minute": None}  # of that one, and of no other
            given = own | {key: given[key] for key in unset} | {k: own[k] for k in mine}
        given.pop("password_file")
        return Relay(**given, helo=self.mail_domain_for(), name=name)

    def _with_password(self, relay: Relay) -> Relay:
        table, settings = (
            ("smtp", self.smtp) if relay.name == "smtp" else (f"relays.{relay.name}", self.relays[relay.name])
        )
        if settings.password_file is None:
            return relay
        return replace(relay, password=_secret_text(settings.password_file, f"{table}.password_file"))

    def mail_rates(self) -> Rates:
        """How fast mail may go."""
        rates, limits = self.rates, {}
        for domain, _, given in (entry.partition("=") for entry in self.rates.domains):
            per_minute, at_once = (int(n) if n else None for n in given.split("/"))
            limits[domain] = Limit(per_minute, at_once)
        others = limits.pop("*", None)
        since = rates.warm_up_since
        warm_up = WarmUp(since, rates.warm_up_first, rates.warm_up_growth) if since else None
        return Rates(rates.per_minute, limits, others, warm_up)

    def dkim_keys(self) -> list[tuple[str, Path]]:
        """(selector, file of its private key), in the order given."""
        pairs = [key.partition("=") for key in self.dkim.keys]
        return [(selector.strip(), Path(file.strip()).expanduser().absolute()) for selector, _, file in pairs]

    @property
    def reads_bounces(self) -> bool:
        """Whether mail to our own envelope senders is read, so that mail may unsubscribe."""
        return self.bounces.read or self.bounces.host is not None

    def bounce_mailbox(self) -> MailPlace | None:
        """Where bounces lie; None: no mailbox is polled. Reads the password file anew."""
        box = self.bounces
        if box.host is None or box.username is None or box.password_file is None:
            return None
        usual = {"imap": (143, 993), "pop": (110, 995)}[box.protocol][box.security == "tls"]
        password = _secret_text(box.password_file, "bounces.password_file")
        return MailPlace(box.protocol, box.host, box.port or usual, box.security, box.username, password, box.folder)

    def hook_secret(self) -> bytes | None:
        """What hooks sign with; None: that hook is closed. Reads the file anew."""
        file = self.hooks.secret_file
        return _secret_text(file, "hooks.secret_file").encode() if file else None

    def mail_domain_for(self) -> str:
        """The setting, else the public URL's host, else (an address, or this machine) localhost.localdomain."""
        host = self.mail_domain or urlsplit(self.public_url).hostname or ""
        return "localhost.localdomain" if _is_address(host) or host == "localhost" else host

    def shown(self) -> dict[str, Any]:
        """All settings as plain data, what is secret in them hidden. A password is only a file's path here."""
        tree: dict[str, Any] = self.model_dump(mode="json")
        tree["database"]["url"] = _without_password(self.database_url)
        return tree


def _without_password(url: str) -> str:
    url = re.sub(r"(//[^/@:]*):[^/]*@", r"\1:***@", url)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", url)


def _secret_text(path: Path, name: str) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(
            f"{name}: {path} cannot be read: {getattr(e, 'strerror', None) or 'it is not text'}"
        ) from None


def _file_of(environ: Mapping[str, str]) -> Path | None:
    if named := environ.get("DIGEST_CONFIG"):
        return Path(named)
    usual = Path("config/digest.toml")
    return usual if usual.is_file() else None


# ----------------------------------------------------------------------------- layers


def names() -> list[str]:
    """Every setting by its dotted name, in the order of the tree."""

    def walk(model: type[BaseModel], prefix: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from walk(field.annotation, f"{prefix}{name}.")
            else:
                yield prefix + name

    return list(walk(Settings, ""))


def variable(name: str) -> str:
    """The environment variable of a setting: smtp.port → DIGEST_SMTP__PORT."""
    return _PREFIX + name.upper().replace(".", "__")


class _Layers:
    """Values by dotted name, each with where it came from; later layers win. Problems are collected, never raised."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._known = names()
        self._tables = {name.split(".")[0] for name in self._known if "." in name}
        self._values: dict[str, tuple[object, str]] = {}

    def add(self, values: Mapping[str, tuple[object, str]]) -> None:
        self._values.update(values)

    def add_file(self, path: Path | None) -> None:
        if path is None:
            return
        try:
            tree = tomllib.loads(path.read_text("utf-8"))
        except OSError as e:
            self.problems.append(f"settings file {path} cannot be read: {e.strerror}")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            self.problems.append(f"settings file {path} is not TOML: {e}")
        else:
            self.add({name: (value, f"{name} in {path}") for name, value in self._leaves(tree, path)})

    def _leaves(self, tree: Mapping[str, Any], path: Path, prefix: str = "") -> Iterator[tuple[str, object]]:
        for key, value in tree.items():
            name = prefix + key
            if isinstance(value, dict) and name in self._tables:
                yield from self._leaves(value, path, f"{name}.")
            elif name in self._known:
                yield name, value
            elif name in self._tables:
                self.problems.append(f"{name} in {path}: is a table of settings; write [{name}]")
            else:
                self._unknown(f"{name} in {path}", name, {n: n for n in [*self._known, *self._tables]})

    def add_environment(self, environ: Mapping[str, str]) -> None:
        known = {variable(name): name for name in self._known}
        for key in sorted(k for k in environ if k.startswith(_PREFIX) and k not in _NOT_SETTINGS):
            if not environ[key]:
                continue  # set to nothing is unset
            if key in known:
                self.add({known[key]: (environ[key], key)})
            elif (plain := key.removesuffix("_FILE")) in known and plain != key:
                self._add_from_file(known[plain], key, Path(environ[key]))
            else:
                self._unknown(key, key, {name: name for name in known})

    def _add_from_file(self, name: str, key: str, path: Path) -> None:
        try:
            self.add({name: (_secret_text(path, key), key)})
        except ConfigError as e:
            self.problems.extend(e.problems)

    @staticmethod
    def _no_such(name: str, known: Iterable[str]) -> str:
        near = difflib.get_close_matches(name, list(known), n=1)
        return (
            f"there is no such setting; {f'did you mean {near[0]}?' if near else 'config/defaults.toml lists them all'}"
        )

    def _unknown(self, where: str, name: str, known: Mapping[str, str]) -> None:
        last = {n.rsplit(".", 1)[-1]: n for n in known}
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        near = near or [last[n] for n in difflib.get_close_matches(name.rsplit(".", 1)[-1], last, n=1, cutoff=0.75)]
        hint = f"did you mean {near[0]}?" if near else "config/defaults.toml lists them all"
        self.problems.append(f"{where}: there is no such setting; {hint}")

    def tree(self) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for name, (value, _) in self._values.items():
            *tables, key = name.split(".")
            branch = tree
            for table in tables:
                branch = branch.setdefault(table, {})
            branch[key] = value
        return tree

    def told(self, e: ValidationError) -> Iterator[str]:
        """One sentence a problem, with the place where the value was given."""
        for error in e.errors(include_url=False, include_input=False, include_context=False):
            name = ".".join(str(part) for part in error["loc"] if isinstance(part, str))
            known = next((n for n in self._known if name == n or name.startswith(f"{n}.")), name)
            where = self._values[known][1] if known in self._values else known
            says = error["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
            if error["type"] == "extra_forbidden":
                says = self._no_such(name.rsplit(".", 1)[-1], RelaySettings.model_fields)
            inside = f"{name.removeprefix(known + '.')}: " if known != name else ""
            yield f"{where}: {inside}{says}"
