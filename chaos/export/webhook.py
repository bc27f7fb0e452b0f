"""A summary posted to a webhook: Slack's shape or plain JSON, a few times with growing pauses, and never for long.

The URL is a secret (whoever knows it can post): it is in no message, no error and no log.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from chaos.errors import PartFailed, UsageError
from chaos.evidence.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.evidence.summary import Summary

ATTEMPTS = 5
BASE, CAP = 0.5, 8.0  # s: pauses are drawn from 0 to twice the one before, up to the cap
TIMEOUT = 10.0  # s an attempt
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
MOST = 2900  # characters of a block (Slack's limit is 3,000)
WHERE = "--webhook"


def plain(summary: Summary, *, secrets: Sequence[str] = ()) -> dict[str, object]:
    """{"target", "verdict", "text", "failed": [...], "stood_out": [...], "kpis": {id: value}}."""
    return {
        "target": redact(summary.run.target, secrets),
        "verdict": summary.run.verdict.value,
        "text": redact(_line(summary), secrets),
        "failed": [
            {"gate": one.id, "said": redact(one.said, secrets), "remedy": one.remedy}
            for one in summary.gates
            if one.tone == "fail"
        ],
        "stood_out": [redact(what, secrets) for what, _ in summary.odd],
        "kpis": {one.id: one.value for one in summary.kpis},
    }


def slack(summary: Summary, *, secrets: Sequence[str] = ()) -> dict[str, object]:
    """{"text", "blocks"} (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks)."""
    failed = [f"*{one.id}* {_text(one.said)}\n>{_text(one.remedy)}" for one in summary.gates if one.tone == "fail"]
    parts = [_text(_line(summary)), _text(summary.streak)]
    parts += ["\n".join(failed), "\n".join(f"• {_text(what)}" for what, _ in summary.odd)]
    parts += ["\n".join(f"{_text(one.title)}: *{one.said}*" for one in summary.kpis if one.value is not None)]
    sections = [
        {"type": "section", "text": {"type": "mrkdwn", "text": redact(text, secrets)[:MOST]}} for text in parts if text.strip()
    ]
    title = redact(f"{summary.run.verdict.value}: {summary.run.target}", secrets)[:150]
    header = {"type": "header", "text": {"type": "plain_text", "text": title}}
    return {"text": redact(_line(summary), secrets), "blocks": [header, *sections]}


SHAPES = {"slack": slack, "plain": plain}


def _line(summary: Summary) -> str:
    return f"{summary.run.verdict.value}: {summary.run.target}, {summary.sentence}"


def _text(text: str) -> str:
    """As mrkdwn takes it: three characters are control characters there."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def post(url: str, body: dict[str, object], *, pause: Callable[[float], None] = time.sleep) -> int:
    """How many attempts it took. UsageError for what is no URL, PartFailed when it was not taken in the end."""
    checked(url)
    import httpx  # noqa: PLC0415  (0.1 s, and only here)

    said, limit = "", BASE
    with httpx.Client(timeout=TIMEOUT, follow_redirects=False) as client:
        for attempt in range(1, ATTEMPTS + 1):
            wait = random.uniform(0, limit)  # noqa: S311  (full jitter, no secret)
            try:
                answer = client.post(url, json=body)
            except (httpx.HTTPError, httpx.InvalidURL) as error:  # its own text may hold the URL
                said = f"no answer ({type(error).__name__})"
            else:
                if answer.is_success:
                    return attempt
                said = f"{answer.status_code}"
                if answer.status_code not in AGAIN:
                    break
                wait = max(wait, _asked(answer.headers.get("retry-after", "")))
            limit = min(CAP, 2 * limit)
            if attempt < ATTEMPTS:
                pause(wait)
    raise PartFailed(
        f"the webhook did not take the summary: {said}, the last of {attempt} attempt{'' if attempt == 1 else 's'}; it is in the "
        "evidence directory all the same",
        remedy="see whether the URL is still good, and post it again: chaos-gate summary DIR --webhook URL",
        where=WHERE,
    )


def _asked(header: str) -> float:
    """Seconds that Retry-After asks for, up to the cap; 0.0 for a date or nonsense."""
    return min(CAP, float(header)) if header.isascii() and header.isdigit() else 0.0


def checked(url: str) -> None:
    """UsageError, without the URL, when nothing can be posted there."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise UsageError("this is no http or https URL", remedy="give the whole URL of the webhook", where=WHERE)


def workflow_commands(summary: Summary, *, secrets: Sequence[str] = ()) -> list[str]:
    """One workflow command for each gate that failed (GitHub: Workflow commands for GitHub Actions)."""
    return [
        f"::error title={_property(one.id)}::{_message(redact(f'{one.said}. {one.remedy}', secrets))}"
        for one in summary.gates
        if one.tone == "fail"
    ]


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
