"""Errors against the standard schema: RFC 9457 problem details, or a JSON Schema of the target's own.

Counted are error answers (>= 400) that the application gave. What the HTTP server answered before the application saw the
request, and what the edge answered without asking, cannot be mended in the application: listed, not counted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from chaos.checks.leaks import leak
from chaos.checks.routes import bare, route
from chaos.model import UNCOUNTED, Finding, History, Kind, Layer, Operation, Outcome
from chaos.statistics import judge_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jsonschema.protocols import Validator

GATE = "rel.error_schema"
LIMIT = 0.005  # of error answers that may be wrong; gates.toml has the last word
KEPT = (4096, 32_768)  # characters of a body that recorders keep: one as long as this may have been cut
EMPTY = "an empty body"
BEHIND = "wire."  # how Operation.client begins for what a relay behind the edge saw of an exchange
CACHES = "H47"  # how Operation.row begins where two requests are about what a cache makes of them
SPARING = (
    "corpus"  # families of odd requests, whose answers nobody attributed to a layer, and whose bodies may not have been kept
)
SERVERS = frozenset({400, 408, 411, 413, 414, 417, 426, 431, 501, 505})  # what HTTP servers answer without asking the application
ECHOED = 5  # characters: a shorter value of a query also stands in what is not its echo
GROUPED = 60  # groups that one finding carries
HEALTH = (Kind.LIVE, Kind.READY)  # for orchestrators, which look at the status; their bodies follow forms of their own
CANDIDATE = (
    "candidate"  # Operation.client begins so where the release under judgement was asked: its forms are rel.api_contract's
)
SOURCE = (
    "RFC 9457: application/problem+json, members of their types, `status` the answer's own; no internals (OWASP WSTG-ERRH-01)"
)
_REFERENCE = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")  # RFC 3986, appendix A, its characters
_VALUES = re.compile(r"\d{4,}|[\[{(].*|(?<!\w)'[^']*'|\"[^\"]*\"")


def problem_with(operation: Operation, schema: str | Mapping[str, Any], *, private: Iterable[str] = ()) -> str:
    """What is wrong with an error answer, in a few words; '' when it is right.

    `schema` is 'problem+json' or a JSON Schema (Any stands for the values of JSON); `private` are values that may not show, such
    as the database's user. An answer to HEAD, a 204 and a 304 have no body (RFC 9110, 6.4.1) and only a media type, if that.
    """
    if found := told(operation, private):
        return f"it tells {found}"
    media = operation.media_type.partition(";")[0].strip().lower()
    bodiless = operation.method == "HEAD" or operation.status in {204, 304}
    wrong = "" if bodiless and not media else _media_type(media, schema)
    return wrong if wrong or bodiless else _text(operation, schema)


def told(operation: Operation, private: Iterable[str] = ()) -> str:
    """What an error answer tells of the inside; '' for nothing. What the request itself said is no secret."""
    body = operation.body
    path, _, query = operation.path.partition("?")
    values = [value for _, value in parse_qsl(query) if len(value) > ECHOED]
    for said in (operation.path, bare(operation.path), unquote(path), *values, operation.unique):
        body = body.replace(said, " ") if len(said) > 1 else body
    return leak(body, private, hosts=operation.kind not in {Kind.HOST, Kind.ATTACK})


def cut(operation: Operation) -> bool:
    """Whether the recorder kept only the beginning of the body, so that it cannot be read as a whole."""
    return len(operation.body) in KEPT or len(operation.body) > max(KEPT)


def _text(operation: Operation, schema: str | Mapping[str, Any]) -> str:
    """What is wrong with the body as JSON of the schema."""
    try:
        value = json.loads(operation.body, parse_constant=_no_constant)
    except RecursionError:
        return "JSON nested too deeply to read"
    except ValueError as error:
        if cut(operation):
            return ""  # cut off by the recorder: its beginning is all there is to judge, and that has been
        return f"no JSON ({error})" if operation.body.strip() else EMPTY
    return _problem(value, operation.status) if isinstance(schema, str) else _invalid(value, schema)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _media_type(media: str, schema: str | Mapping[str, Any]) -> str:
    if isinstance(schema, str):
        return "" if media == "application/problem+json" else f"media type {media or '(none)'}, not application/problem+json"
    return "" if media == "application/json" or media.endswith("+json") else f"media type {media or '(none)'}, not JSON"


def _problem(value: object, status: int | None) -> str:
    """What RFC 9457 finds wrong with a problem details object."""
    if not isinstance(value, dict):
        return f"a JSON {_kind(value)}, not an object"
    texts = {name: value[name] for name in ("type", "title", "detail", "instance") if name in value}
    wrong = [f"`{name}` is a {_kind(text)}, not a string" for name, text in texts.items() if not isinstance(text, str)]
    wrong += [
        f"`{name}` is no URI reference: {texts[name][:60]!r}"
        for name in ("type", "instance")
        if isinstance(texts.get(name), str) and _REFERENCE.fullmatch(texts[name]) is None
    ]
    own = value.get("status", status)
    if isinstance(own, bool) or not isinstance(own, int | float):
        wrong.append(f"`status` is a {_kind(own)}, not a number")
    elif own != status:
        wrong.append(f"`status` says {own}, the answer is {status}")
    if not {"type", "title", "status", "detail"} & set(value):
        wrong.append("none of `type`, `title`, `status` and `detail`")
    return wrong[0] if wrong else ""


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _invalid(value: Any, schema: Mapping[str, Any]) -> str:
    """What the JSON Schema finds wrong first, with where in the answer it is."""
    from jsonschema.exceptions import best_match  # noqa: PLC0415  (0.1 s to import, and only own schemas need it)

    found = best_match(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value))
    return f"{found.json_path}: {found.message[:160]}" if found else ""


@lru_cache(maxsize=8)
def _validator(schema: str) -> Validator:
    """The validator for the draft that the schema names, 2020-12 when it names none; cached by the schema's text."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.validators import validator_for  # noqa: PLC0415

    value = json.loads(schema)
    made: Validator = validator_for(value, default=Draft202012Validator)(value)
    return made


def judge(
    history: History, schema: str | Mapping[str, Any], *, limit: float = LIMIT, private: Iterable[str] = ()
) -> Finding | None:
    """The finding for rel.error_schema, check 'errors.<experiment>'; None when there was no error answer to look at.

    The outcome is PASS when none is wrong, FAIL when more than `limit` of them certainly are, else INCONCLUSIVE; the gate goes by
    `n`, `bad` and `groups`, over all experiments together.
    """
    hidden = tuple(private)
    errors = [one for one in history.operations if one.status is not None and one.status >= 400]
    if not errors:
        return None
    spare = history.facts.get("family", "").startswith(SPARING)
    judged = [_standing(one, problem_with(one, schema, private=hidden), spare=spare) for one in errors]
    counted = [(one, why) for one, why, listed in judged if not listed]
    others = [(one, why, listed) for one, why, listed in judged if listed]
    wrong = [(one, why) for one, why in counted if why]
    templates = tuple(json.loads(history.facts.get("routes", "[]")))
    groups = Counter(f"{_where(one, templates)}: {_general(why)}" for one, why in wrong)
    aside = Counter(f"{_where(one, templates)}: {_general(why)}{UNCOUNTED}" for one, why, _ in others if why)
    detail = f"{len(wrong)} of {len(counted)} error answers of the application are wrong"
    if wrong:
        detail += ": " + "; ".join(f"{count} x {text}" for text, count in groups.most_common(4))
    if others:
        detail += f". Not counted: {_listed(others)}"
    outcome = (
        Outcome.NOT_APPLICABLE if not counted else Outcome.PASS if not wrong else judge_rate(len(wrong), len(counted), limit)
    )
    return Finding(
        check=f"errors.{history.experiment}",
        gate=GATE,
        outcome=Outcome.FAIL if wrong and outcome is Outcome.PASS and limit == 0 else outcome,
        detail=detail,
        n=len(counted),
        bad=len(wrong),
        expected=SOURCE if isinstance(schema, str) else "JSON that is valid by [target.errors] schema, without internals",
        examples=_examples(wrong),
        groups=(*groups.most_common(GROUPED), *aside.most_common(GROUPED)),
    )


def _standing(one: Operation, why: str, *, spare: bool = False) -> tuple[Operation, str, str]:
    """The answer, what is wrong with it, and why it is only listed ('': it is counted). Whoever it is for: it may tell nothing."""
    if one.layer is not Layer.APPLICATION:
        return one, why, f"by the {one.layer}, for the application never saw the request"
    leaks = why.startswith("it tells ")
    if not leaks and (elsewhere := _elsewhere(one)):
        return one, "", elsewhere
    if spare and why == EMPTY:
        return one, "", "whose bodies were not kept, right as far as their media type goes"
    if spare and why and not leaks and one.status in SERVERS:
        return one, why, "which the HTTP server itself may have given"
    if cut(one) and not why and not _whole(one):
        return one, "", "longer than what is kept of them, right as far as that goes"
    return one, why, ""


def _elsewhere(one: Operation) -> str:
    """Why the form of an answer is not this check's business; '' when it is."""
    if one.kind in HEALTH:
        return "to health checks, whose bodies follow forms of their own"
    if one.kind is Kind.ATTACK:
        return "to attacks, where whoever stands in front may have answered"
    if one.client.startswith(CANDIDATE):
        return "by the candidate, whose forms rel.api_contract compares"
    if one.client.startswith(BEHIND):
        return "seen behind the edge, and counted before it"
    return "to rows about caches, of which no body was kept" if one.row.startswith(CACHES) else ""


def _whole(one: Operation) -> bool:
    try:
        json.loads(one.body)
    except (ValueError, RecursionError):
        return False
    return True


def _where(one: Operation, templates: tuple[str, ...]) -> str:
    """'GET /items/* 500 (application)'."""
    return f"{one.method} {route(one.path, templates)} {one.status} ({one.layer})"


def _general(why: str) -> str:
    """A reason without the values of one answer, so that what is one mistake is one group."""
    if why.startswith("it tells "):
        return why.partition(": ")[0]
    return " ".join(_VALUES.sub("...", why).split())[:110]


def _listed(others: list[tuple[Operation, str, str]]) -> str:
    groups = Counter((one.status, bool(why), listed) for one, why, listed in others)
    return ", ".join(
        f"{count} x {status} {listed}{', in another form' if wrong else ''}"
        for (status, wrong, listed), count in groups.most_common(4)
    )


def _examples(wrong: list[tuple[Operation, str]]) -> tuple[str, ...]:
    """Up to three, each with another reason: the request, the answer's beginning, what is wrong with it."""
    different: dict[str, Operation] = {}
    for one, why in wrong:
        different.setdefault(why, one)
    return tuple(
        f"{one.method} {one.path} ({one.sample}): {one.status} {one.media_type} {' '.join(one.body.split())[:160]!r}: {why}"
        for why, one in list(different.items())[:3]
    )
