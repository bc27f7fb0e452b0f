"""Landing pages: HTML from the database, one sub-domain a page. `*.landing.example.test` is the SEO domain.

Links are relative or made of the configured domain and a slug from the database. The Host chooses a page and is never printed.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

    from chaos.targets.reference.database import Database, Row, Session
    from chaos.targets.reference.settings import Settings

_PAGE = "SELECT slug, title, body FROM pages WHERE slug = %(slug)s"
_SLUGS = "SELECT slug FROM pages ORDER BY slug LIMIT 1000"
_NEWEST = "SELECT id, name FROM items ORDER BY id DESC LIMIT 5"
# Searching people and crawlers must never be kept a page of an outage: errors are no-store (problems.py), pages for a minute.
_CACHE = {"Cache-Control": "public, max-age=60", "Vary": "Accept-Encoding"}


@dataclass(frozen=True, slots=True)
class Landing:
    """The endpoints of the SEO surface."""

    database: Database
    settings: Settings

    def routes(self) -> list[Route]:
        """The page itself, and what crawlers ask for."""
        return [
            Route("/", self.page, methods=["GET"]),
            Route("/robots.txt", self.robots, methods=["GET"]),
            Route("/sitemap.xml", self.sitemap, methods=["GET"]),
        ]

    @property
    def domain(self) -> str:
        """The SEO domain, as configured."""
        return self.settings.seo_hosts[0].removeprefix("*.") if self.settings.seo_hosts else "localhost"

    async def page(self, request: Request) -> Response:
        """GET /: the page of this sub-domain, or a general one for a sub-domain that nobody has written a page for."""
        slug = request.scope["reference.host"].name.partition(".")[0]

        async def read(session: Session) -> tuple[Row | None, list[Row]]:
            return await session.row(_PAGE, {"slug": slug}), await session.rows(_NEWEST)

        found, newest = await self.database.run(read, repeatable=True)
        title, body = (found[1], found[2]) if found else ("Our items", "Everything we have, newest first.")
        canonical = f'<link rel="canonical" href="https://{html.escape(found[0])}.{self.domain}/">' if found else ""
        listed = "".join(f'<li><a href="/api/items/{number}">{html.escape(name)}</a></li>' for number, name in newest)
        return HTMLResponse(
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>{canonical}</head>'
            f"<body><h1>{html.escape(title)}</h1><p>{html.escape(body)}</p><ul>{listed}</ul></body></html>",
            headers=_CACHE,
        )

    async def robots(self, _request: Request) -> Response:
        """GET /robots.txt. No database: a crawler that cannot read it stops crawling the whole site (RFC 9309, 2.3.1.4)."""
        return PlainTextResponse("User-agent: *\nAllow: /\nSitemap: /sitemap.xml\n", headers=_CACHE)

    async def sitemap(self, _request: Request) -> Response:
        """GET /sitemap.xml: every page that was written."""
        rows = await self.database.run(lambda session: session.rows(_SLUGS), repeatable=True)
        urls = "".join(f"<url><loc>https://{html.escape(slug)}.{self.domain}/</loc></url>" for (slug,) in rows)
        return Response(
            f'<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{urls}</urlset>',
            media_type="application/xml",
            headers=_CACHE,
        )
