"""Every error answer of the service, as one tree and in one form (RFC 9457, application/problem+json).

    Problem                  status, code (stable, for programs), title (for people), detail
    +-- Refused      4xx     decided from the request alone: the database was not asked
    +-- Unavailable  503     the database could not answer; Retry-After says when to come again
    +-- NotReady     503     /readyz only

`detail` is written by us, sentence by sentence: never an exception's text, which may hold SQL, values, host names.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818  (it is an answer; RFC 9457 calls it a problem)
    """An answer that is an error. `errors` lists what was wrong in a body: (JSON pointer, sentence) pairs."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = tuple(errors)


class Refused(Problem):
    """The request can never succeed as it is: 4xx."""


class Unavailable(Problem):
    """The database could not answer in time. Retry-After is small: recovery takes at most a few seconds."""

    def __init__(self, code: str, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(503, code, detail, headers={"Retry-After": str(retry_after)})


class NotReady(Unavailable):
    """Do not send traffic here now; the process itself is well."""


Rendered = tuple[int, list[tuple[bytes, bytes]], bytes]


def render(problem: Problem, request_id: str) -> Rendered:
    """Status, raw headers and body of a problem. `type` is about:blank, so `title` is the status's phrase (RFC 9457, 4.2.1)."""
    content: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }
    if problem.errors:
        content["errors"] = [{"pointer": pointer, "detail": detail} for pointer, detail in problem.errors]
    body = json.dumps(content).encode()
    headers = {**problem.headers, "Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
    return problem.status, [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()], body
