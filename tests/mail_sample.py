"""A real edition to render: fourteen articles of digital.gov, with and without pictures, in titled sections."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zoneinfo import ZoneInfo

from digest.types import ArticleCard, Brand, EditionView, Image, Section, StoryCard

ROWS = json.loads((Path(__file__).parent / "data" / "rendering" / "digitalgov.json").read_text("utf-8"))
WHEN = datetime(2026, 11, 24, 7, 0, tzinfo=ZoneInfo("America/New_York"))
BRAND = Brand(
    name="Digital.gov", url="https://news.example/", language="en", timezone="America/New_York",
    postal_address="General Services Administration\n1800 F Street NW, Washington, DC 20405", accent="#0b5fad",
    footer_links=(("About us", "https://news.example/about"), ("Privacy", "https://news.example/privacy")),
)  # fmt: skip
VIEW = EditionView(
    edition_id=7, digest_slug="morning", digest_name="The Morning Digest", layout="cards", brand=BRAND, local_date=WHEN,
    archive_url="https://news.example/archive/morning/2026-11-24", home_url="https://news.example/",
)  # fmt: skip


def cards(pictures: str = "https://news.example/pictures") -> list[ArticleCard]:
    """All fourteen. Pictures: most wide, one tall, one small, every fourth article none; one without an excerpt."""
    found = []
    for number, row in enumerate(ROWS):
        width, height = {2: (600, 900), 5: (300, 200)}.get(number, (1200, 600))
        image = Image(f"{pictures}/{number}-{width}x{height}.svg", width, height, f"Illustration of {row['topics'][0]}")
        found.append(
            ArticleCard(
                id=number + 1,
                title=row["title"],
                url=row["url"],
                excerpt="" if number == 8 else row["excerpt"],
                image=None if number % 4 == 3 else image,
                authors=tuple(row["authors"]),
                published_at=WHEN.astimezone(UTC) - timedelta(hours=5 * number + 1),
                category=row["topics"][0].replace("-", " ").capitalize(),
                word_count=600,
            )
        )
    return found


def sections(pictures: str = "https://news.example/pictures") -> tuple[Section, ...]:
    """Twelve stories under three headings; the first has two that tell the same."""
    c = cards(pictures)
    return (
        Section("Top stories", (StoryCard(c[0], (c[12], c[13])), StoryCard(c[1]), StoryCard(c[2]), StoryCard(c[3]))),
        Section("Security", (StoryCard(c[5]), StoryCard(c[9]), StoryCard(c[4]), StoryCard(c[6]))),
        Section("Accessibility", (StoryCard(c[8]), StoryCard(c[7]), StoryCard(c[10]), StoryCard(c[11]))),
    )


def _logo(name: str, width: int, height: int) -> str:
    """A mark of two leaves and a word, for light paper or, with ``night`` in its name, for dark."""
    ink, leaf = ("#f2f4f5", "#7fb2e5") if "night" in name else ("#17191c", "#0b5fad")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 180 36">'
        f'<path fill="{leaf}" d="M4 32V16A12 12 0 0 1 16 4h2v16A12 12 0 0 1 6 32zM20 32V20A12 12 0 0 1 32 8v12'
        f'a12 12 0 0 1-12 12z"/><path fill="{ink}" d="M44 10h6v16h-6zM54 10h16v5h-16zM54 20h12v6h-12zM74 10h6v16h-6z'
        f"M84 10h16v16h-16zM104 10h6v16h-6zM114 10h18v5h-18zM114 20h18v6h-18zM136 10h6v16h-6zM146 10h14v16h-14z"
        f'M164 10h6v16h-6z"/></svg>'
    )


def _drawing(name: str, width: int, height: int) -> str:
    """A calm landscape of layered hills, its colours from the name."""
    seed = hashlib.sha256(name.encode()).digest()
    hue = seed[0] * 360 // 256
    hills = []
    for layer in range(4):
        base = height * (0.45 + 0.14 * layer)
        rise = [height * (0.02 + seed[4 * layer + n] / 256 * 0.16) for n in range(4)]
        hills.append(
            f'<path fill="hsl({hue + 12 * layer},{34 + 4 * layer}%,{66 - 13 * layer}%)" d="M0 {base:.0f}'
            f" C{width * 0.2:.0f} {base - rise[0] * 2:.0f} {width * 0.35:.0f} {base + rise[1]:.0f} {width * 0.5:.0f}"
            f' {base:.0f} S{width * 0.85:.0f} {base - rise[2] * 2:.0f} {width} {base - rise[3]:.0f} V{height} H0z"/>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<rect width="100%" height="100%" fill="hsl({hue},48%,88%)"/>'
        f'<circle cx="{width * (0.2 + seed[20] / 420):.0f}" cy="{height * 0.27:.0f}" r="{height * 0.1:.0f}"'
        f' fill="hsl({(hue + 40) % 360},80%,93%)"/>{"".join(hills)}</svg>'
    )


@contextmanager
def picture_server() -> Iterator[str]:
    """Serve pictures on loopback; gives the base address. Nothing else is served: a request for it is a 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2].removesuffix(".svg")
            try:
                width, height = map(int, name.rpartition("-")[2].split("x"))
            except ValueError:
                return self.send_error(404)
            draw = _logo if name.startswith("logo") else _drawing
            body = draw(name, width, height).encode()
            self.send_response(200)
            self.send_header("Content-Type", "image/svg+xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return None

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/pictures"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
