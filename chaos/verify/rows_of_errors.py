"""Error answers: how many of the application's own there were, and how many are certainly not in the standard schema (RFC 9457).

The judging side also looks for internals in them (stack traces, addresses), which it may count as bad beside: so `bad` is at least
what is counted here. With a JSON Schema of the target's own only the number of answers is counted again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chaos.verify.expected import Expected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.verify.gates import Policy
    from chaos.verify.records import Record, Row

KEPT = (4096, 32_768)  # characters that recorders keep of a body
NOT_THEIRS = ("candidate", "wire.")  # how `client` begins where it was not the target's own answer to a user
PROBLEM = "application/problem+json"


def _elsewhere(one: Row) -> bool:
    """Not the application's error answer to a user."""
    return bool(
        one["layer"] != "application"
        or one["kind"] in {"live", "ready", "attack"}
        or one["client"].startswith(NOT_THEIRS)
        or one["row"].startswith("H47")
    )


def _cut(one: Row) -> bool:
    return len(one["body"]) in KEPT or len(one["body"]) > max(KEPT)


def wrong(one: Row) -> bool:
    """Certainly no problem details object: by its media type, as JSON, or by its members."""
    media = one["media_type"].partition(";")[0].strip().lower()
    if one["method"] == "HEAD":
        return media not in {"", PROBLEM}
    if media != PROBLEM:
        return True
    try:
        value = json.loads(one["body"])
    except (ValueError, RecursionError):
        return not _cut(one)
    if not isinstance(value, dict) or not {"type", "title", "status", "detail"} & value.keys():
        return True
    texts = (value[name] for name in ("type", "title", "detail", "instance") if name in value)
    return value.get("status", one["status"]) != one["status"] or not all(isinstance(text, str) for text in texts)


def errors(record: Record, policy: Policy) -> Iterator[Expected]:
    """The finding of one history. Odd requests (corpus) are left out: what of their answers counts needs more than the rows say."""
    schema = policy["limits"]["errors"]
    answers = [one for one in record.tables["operation"] if one["status"] is not None and one["status"] >= 400]
    if schema is None or not answers or record.facts.get("family", "").startswith("corpus"):
        return
    own = [one for one in answers if not _elsewhere(one)]
    if any(map(_cut, own)):
        return  # only whoever saw them whole can say which of those count
    # what tells internals counts whoever it was for, and only the judging side looks for that
    leaking = [one for one in answers if one["layer"] == "application" and _elsewhere(one)]
    least = sum(map(wrong, own)) if schema == "problem+json" else 0
    yield Expected(f"errors.{record.experiment}", n=len(own), most=len(own) + len(leaking), least=least)
