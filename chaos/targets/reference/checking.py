"""Input, checked in full before the database is touched: an invalid request stays a 4xx under every fault."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.targets.reference.problems import Refused
from chaos.targets.reference.telemetry import remember_private

if TYPE_CHECKING:
    from starlette.requests import Request

    from chaos.targets.reference.settings import Settings

_KEY = re.compile(r"[\x21-\x7e]{8,200}")
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,189}")
NAME_LENGTH = 200
BIGGEST_ID = 2**63 - 1  # bigint


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """The body of POST items, checked."""

    name: str
    email: str | None


def item_id(request: Request) -> int:
    """The id in the path: 1 to 2^63-1 in ASCII digits. Raises Refused (400)."""
    raw = str(request.path_params["id"])
    if not (raw.isascii() and raw.isdigit() and len(raw) <= 19 and 1 <= int(raw) <= BIGGEST_ID):
        raise Refused(400, "invalid_id", "An item's id is a whole number from 1 on.")
    return int(raw)


def limit(request: Request) -> int:
    """How many items at most: 1 to 100, 20 when not given. Raises Refused (400)."""
    raw = request.query_params.get("limit", "20")
    if not (raw.isascii() and raw.isdigit() and len(raw) <= 3 and 1 <= int(raw) <= 100):
        raise Refused(400, "invalid_limit", "limit is a whole number from 1 to 100.")
    return int(raw)


def name_wanted(request: Request) -> str | None:
    """The name to look for; None when the caller asks for all. Raises Refused (400)."""
    raw = request.query_params.get("name")
    if raw is not None and (wrong := _name_problem(raw)):
        raise Refused(400, "invalid_name", wrong)
    return raw


def idempotency_key(request: Request) -> str | None:
    """The caller's Idempotency-Key. Raises Refused (400) for one that could not be stored as it is."""
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise Refused(400, "invalid_idempotency_key", "An Idempotency-Key is one header of 8 to 200 visible ASCII characters.")
    return keys[0]


def provider(request: Request, settings: Settings) -> None:
    """Let partners in, by the key in X-API-Key. Raises Refused (401). Compared in constant time, against each key."""
    given = request.headers.get("x-api-key", "").encode()
    if sum(hmac.compare_digest(given, key.encode()) for key in settings.provider_keys) == 0:
        raise Refused(
            401, "api_key_needed", "A valid X-API-Key is needed.", headers={"WWW-Authenticate": 'ApiKey realm="provider"'}
        )


async def new_item(request: Request, settings: Settings) -> NewItem:
    """The body of POST items. Raises Refused: 415 not JSON, 413 too large, 408 too slow, 400 malformed, 422 wrong fields."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refused(415, "json_needed", "Send application/json.", headers={"Accept-Post": "application/json"})
    content = _object(await _body(request, settings))
    if isinstance(email := content.get("email"), str):
        remember_private(email)
    errors: list[tuple[str, str]] = []
    name = content.get("name")
    if not isinstance(name, str):
        errors.append(("/name", "A text is needed."))
    elif wrong := _name_problem(name):
        errors.append(("/name", wrong))
    if email is not None and not (isinstance(email, str) and _EMAIL.fullmatch(email) and _storable(email)):
        errors.append(("/email", "This is no e-mail address."))
    if content.keys() - {"name", "email"}:
        errors.append(("", "An item has a name and an email, and no other field."))
    if errors or not isinstance(name, str):
        raise Refused(422, "invalid_item", "The item has fields that are missing or wrong.", errors=errors)
    return NewItem(name=name, email=email)


def _name_problem(name: str) -> str:
    if not 1 <= len(name) <= NAME_LENGTH:
        return f"A name has 1 to {NAME_LENGTH} characters."
    # NUL and lone surrogates cannot be stored by PostgreSQL at all: found here, or as a 500 later.
    return "" if _storable(name) and name.isprintable() else "A name is made of printable characters."


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _object(body: bytes) -> dict[str, Any]:  # Any: JSON, checked field by field by the caller
    try:
        content = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise Refused(400, "malformed_json", "The body is not valid JSON in UTF-8.") from None
    if not isinstance(content, dict):
        raise Refused(422, "invalid_item", "The body is not a JSON object.", errors=[("", "An object is needed.")])
    return content


def _no_constant(name: str) -> None:
    """NaN and Infinity are no JSON (RFC 8259, 6), though Python reads them."""
    raise ValueError(name)


async def _body(request: Request, settings: Settings) -> bytes:
    too_large = Refused(413, "too_large", f"A body has at most {settings.max_body} bytes.", headers={"Connection": "close"})
    if int(request.headers.get("content-length", "0")) > settings.max_body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > settings.max_body:
                    raise too_large
    except TimeoutError:
        raise Refused(408, "too_slow", "The body did not arrive in time.", headers={"Connection": "close"}) from None
    return bytes(body)
