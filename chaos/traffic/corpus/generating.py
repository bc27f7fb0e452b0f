"""Requests that are made from a target's description: boundary cases of our own, and negative ones by schemathesis, both seeded.

Boundary cases change one value of a request that is known to be good (one of chaos.toml that fits the operation, else one made from
the examples and limits of the schema); they cost nothing and are what a short run samples. schemathesis (an extra, imported late) adds
as many as are wanted. What either of them says of a request is not believed: `deserving.Rules` looks at the bytes.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from chaos.traffic.corpus.ask import Ask, query_of, with_headers
from chaos.traffic.corpus.deserving import parsed, path_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from chaos.traffic.corpus.deserving import Rules
    from chaos.traffic.openapi import Declared

CHANGING = {"PUT", "PATCH", "DELETE"}
ROUNDS, FEW = 5, 20  # over all operations, until enough are distinct, or hardly any is new
MOST_OPERATIONS = 150  # of a huge description: a seeded choice
LONG_TEXT = 3000
BASE = "http://target.invalid"
JSON = "application/json"
# What goes wrong in services, as text for paths and queries; the schema decides which of them are wrong here.
TEXTS = (
    "abc", "", "\0", "a\0b", "-1", "0", "1.5", "1e309", "NaN", "2147483648", "-2147483649", "9223372036854775808",
    "99999999999999999999", "-99999999999999999999", "9" * 120, "true", "null", "[]", "{}", "0x10", "1;2", "'", "%", "\N{SNOWMAN}",
    "x" * LONG_TEXT, "\U0001f4a5" * 300, "2026-13-45", "../x", " ", "1 OR 1=1",
)  # fmt: skip
RAW = ("%FF%FE", "%ED%A0%80", "%C0%80")  # ill-formed UTF-8, a surrogate, an overlong form
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 1 << 31, 1 << 63, -(1 << 63) - 1, 10**30, "", "abc", "\0", "a\0b", "x" * LONG_TEXT, "\ud800",
    [], [1], {}, {"a": {"b": []}}, "2026-13-45", "1e309",
)  # fmt: skip
BODIES = (
    b"", b"{", b"[]", b"null", b'"text"', b"7", b"\xff\xfe\x00", b'{"a": NaN}', b"[" * 100, b"{}", b"not json", b'{"a":1}{"b":2}',
)  # fmt: skip
MEDIA = ("text/plain", "application/xml", "application/x-www-form-urlencoded", "")
UNDECLARED = "PROPFIND"  # a method that hardly any service has; one that it might have could do harm


@dataclass
class Maker:
    """Makes asks for the operations of one description. `known` are good requests of chaos.toml, settled; `reads` their paths."""

    rules: Rules
    known: tuple[Ask, ...]
    seed: int
    safe_only: bool = False  # the target is not ours to write to

    def operations(self) -> list[Declared]:
        """Those that are used, in a seeded order, at most `MOST_OPERATIONS`."""
        found = [one for one in self.rules.description.operations() if not self.safe_only or one.method in {"GET", "HEAD"}]
        random.Random(f"{self.seed} operations").shuffle(found)  # noqa: S311  (a sample, not a secret)
        return found[:MOST_OPERATIONS]

    # -- boundary cases ---------------------------------------------------------------------------------------------------------

    def boundary(self) -> Iterator[Ask]:
        """All of ours, operation by operation."""
        for declared in self.operations():
            found: list[Ask] = []
            with suppress(TypeError, ValueError, KeyError, AttributeError):  # a schema that is nonsense from there on
                found.extend(filter(self.fit_to_send(declared), self._around(declared, self.good(declared))))
            yield from found

    def good(self, declared: Declared) -> Ask:
        """A request for this operation that ought to be served."""
        base = self.rules.description.base()
        for one in self.known:
            path = urlsplit(one.target).path
            if one.method == declared.method and path_values(declared.path, path.removeprefix(base)) is not None:
                return replace(one, source="boundary", route=_route(declared), why="")
        target, query, headers = base + declared.path, [], []
        for parameter in declared.parameters:
            name, where = parameter["name"], parameter.get("in")
            value = str(self.example(parameter.get("schema", parameter)))
            if where == "path":
                target = target.replace("{" + name + "}", quote(value, safe=""))
            elif where == "query" and parameter.get("required"):
                query.append(f"{quote(name)}={quote(value)}")
            elif where == "header" and parameter.get("required") and value.isascii():
                headers.append((name, value))
        content, _ = self.rules.content(declared)
        body = b""
        if content:
            media = JSON if JSON in content else next(iter(content))
            headers.append(("Content-Type", media))
            body = json.dumps(self.example(content[media])).encode()
        target = re.sub(r"\{[^{}]*\}", "1", target) + ("?" + "&".join(query) if query else "")
        return Ask(
            key="",
            source="boundary",
            method=declared.method,
            target=target,
            headers=tuple(headers),
            body=body,
            route=_route(declared),
        )

    def example(self, schema: Any, depth: int = 0) -> Any:  # noqa: PLR0911  (a ladder of sources)
        """A plain value that a schema is likely to accept."""
        one = self.rules.description.resolve(schema)
        if not isinstance(one, dict) or depth > 6:
            return "x"
        for key in ("example", "default", "const"):
            if key in one:
                return one[key]
        if isinstance(one.get("enum"), list) and one["enum"]:
            return one["enum"][0]
        for key in ("anyOf", "oneOf", "allOf"):
            if isinstance(one.get(key), list) and one[key]:
                return self.example(one[key][0], depth + 1)
        kinds = one.get("type", "object" if "properties" in one else "string")
        kind = kinds[0] if isinstance(kinds, list) and kinds else kinds
        if kind in {"integer", "number"}:
            low = one.get("minimum", 1)
            return low if isinstance(low, int) else 1
        if kind == "object":
            named = one.get("properties", {})
            wanted = [name for name in one.get("required") or () if name in named]
            return {name: self.example(named[name], depth + 1) for name in wanted}
        if kind == "array":
            return [self.example(one.get("items"), depth + 1)] if one.get("minItems") else []
        formats = {"date-time": "2026-01-01T00:00:00Z", "date": "2026-01-01", "email": "a@example.test"}
        formats["uuid"] = "00000000-0000-4000-8000-000000000000"
        return {"boolean": True, "null": None}.get(
            str(kind), formats.get(str(one.get("format")), "x" * max(1, one.get("minLength", 1)))
        )

    def _around(self, declared: Declared, good: Ask) -> Iterator[Ask]:
        if declared.method in {"GET", "HEAD"}:  # does it exist at all? Of the others it would change something
            yield replace(good, key=f"good {good.route}")
        good = replace(good, key="")
        for parameter in declared.parameters:
            yield from self._parameter(declared, good, parameter)
        if declared.method in {"POST", "PUT", "PATCH"}:
            yield from self._bodies(declared, good)
        if not self.safe_only:
            yield replace(good, method=UNDECLARED, body=b"", route=f"{UNDECLARED} {declared.path}")

    def _parameter(self, declared: Declared, good: Ask, parameter: Any) -> Iterator[Ask]:
        name, where = parameter["name"], parameter.get("in")
        path, _, query = good.target.partition("?")
        if where == "path":
            base = self.rules.description.base()
            values = path_values(declared.path, path.removeprefix(base)) or {}
            for text in (*map(_quoted, TEXTS), *RAW):
                filled = declared.path
                for each, value in {**dict.fromkeys(values, ""), **values, name: None}.items():
                    filled = filled.replace("{" + each + "}", text if value is None else quote(value, safe=""))
                if "{" not in filled:
                    yield replace(good, target=base + filled + (f"?{query}" if query else ""))
        elif where == "query":
            rest = [
                f"{quote(key, errors='surrogateescape')}={quote(value, errors='surrogateescape')}"
                for key, value in query_of(good.target)
                if key != name
            ]
            for text in (*map(_quoted, TEXTS), *RAW):
                yield replace(good, target=f"{path}?" + "&".join([*rest, f"{quote(name)}={text}"]))
            if parameter.get("required"):
                yield replace(good, target=path + ("?" + "&".join(rest) if rest else ""))
        elif where == "header":
            rest_of = tuple(pair for pair in good.headers if pair[0].lower() != name.lower())
            yield replace(good, headers=rest_of)
            for text in TEXTS:
                yield replace(good, headers=(*rest_of, (name, text)))

    def _bodies(self, declared: Declared, good: Ask) -> Iterator[Ask]:
        content, _ = self.rules.content(declared)
        typed = tuple(pair for pair in good.headers if pair[0].lower() != "content-type")
        for body in BODIES:
            yield replace(good, body=body, headers=(*typed, ("Content-Type", JSON)))
        for media in MEDIA:
            yield replace(good, headers=(*typed, ("Content-Type", media)) if media else typed)
        value = parsed(good.body)
        schema = self.rules.description.resolve((content or {}).get(JSON))
        if not isinstance(value, dict) or not isinstance(schema, dict):
            return
        for name in {**dict.fromkeys(value), **dict.fromkeys(schema.get("properties") or ())}:
            yield replace(good, body=json.dumps({key: one for key, one in value.items() if key != name}).encode())
            for one in VALUES:
                yield replace(good, body=json.dumps({**value, name: one}).encode())
        yield replace(good, body=json.dumps({**value, "chaos_gate": 1}).encode())

    # -- schemathesis -----------------------------------------------------------------------------------------------------------

    def negative(self, wanted: int) -> Iterator[Ask]:
        """Up to `wanted`, evenly over the operations. ImportError when schemathesis is not installed."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries' own, about a description that is not ours
            yield from _Thesis(self, wanted).asks()

    def fit_to_send(self, declared: Declared) -> Callable[[Ask], bool]:
        """Whether a request can do no harm to what the other checks need, should a lenient target carry it out."""
        kept = {urlsplit(one.target).path for one in self.known}

        def fit(ask: Ask) -> bool:
            if not ask.known():
                return False
            if ask.method not in CHANGING:
                return True
            path = urlsplit(ask.target).path
            if path in kept:
                return False
            return declared.method != "DELETE" or self.rules.why(ask, declared).startswith(("schema: path", "unstorable: path"))

        return fit


class _Thesis:
    """schemathesis, asked operation by operation."""

    def __init__(self, maker: Maker, wanted: int) -> None:
        self.maker, self.wanted = maker, wanted
        self.usable = len(maker.operations())  # operations among which what is wanted is shared out

    def asks(self) -> Iterator[Ask]:
        import schemathesis  # noqa: PLC0415  (an extra; it and hypothesis are needed at night only)

        schema = schemathesis.openapi.from_dict(self.maker.rules.description.document)
        found: dict[tuple[object, ...], Ask] = {}
        for turn in range(ROUNDS):
            before = len(found)
            for declared, operation in self._operations(schema):
                share = max(8, (self.wanted - before) // max(1, self.usable))
                fit = filter(self.maker.fit_to_send(declared), self._cases(operation, declared, share, turn))
                for ask in itertools.islice(fit, share):
                    found.setdefault(ask.identity, ask)
            if len(found) >= self.wanted or len(found) < before + FEW:
                break
            self.usable = max(1, len({one.route for one in found.values()}))  # others have nothing that could be wrong
        yield from itertools.islice(found.values(), self.wanted)

    def _operations(self, schema: Any) -> Iterator[tuple[Declared, Any]]:
        for declared in self.maker.operations():
            try:
                yield declared, schema[declared.path][declared.method]
            except Exception:  # noqa: BLE001, S112  (an operation that it cannot read is one that is left out)
                continue

    def _cases(self, operation: Any, declared: Declared, most: int, turn: int) -> Iterable[Ask]:
        import hypothesis  # noqa: PLC0415
        from schemathesis import GenerationMode  # noqa: PLC0415

        found: dict[tuple[object, ...], Ask] = {}
        try:
            strategy = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

            @hypothesis.seed(self.maker.seed * ROUNDS + turn)
            @hypothesis.settings(
                max_examples=most + FEW,
                database=None,
                deadline=None,
                phases=[hypothesis.Phase.generate],
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(strategy)
            def draw(case: Any) -> None:
                if (ask := _on_the_wire(case, declared)) is not None:
                    found.setdefault(ask.identity, ask)

            draw()
        except Exception:  # noqa: BLE001, S110  (whatever it cannot make requests of is left out, as is what cannot be wrong)
            pass
        return list(found.values())


def _on_the_wire(case: Any, declared: Declared) -> Ask | None:
    """What `requests` would send for a case; None for what has a random part of its own, or cannot be sent."""
    import requests  # noqa: PLC0415  (comes with schemathesis)

    known = {"method", "url", "headers", "data", "json", "params", "cookies"}
    try:
        parts = case.as_transport_kwargs(base_url=BASE)
        if parts.get("files"):
            return None
        ready = requests.Request(**{key: value for key, value in parts.items() if key in known}).prepare()
    except Exception:  # noqa: BLE001  (a value that has no form on the wire)
        return None
    body = ready.body or b""
    if not isinstance(body, str | bytes) or ready.url is None:
        return None
    ours = {"user-agent", "accept-encoding", "accept", "x-schemathesis-testcaseid"}
    headers = {name: _text(value) for name, value in ready.headers.items() if name.lower() not in ours}
    return Ask(
        key="",
        source="generated",
        method=str(ready.method),
        target=ready.url.removeprefix(BASE) or "/",
        headers=with_headers(headers),
        body=body.encode() if isinstance(body, str) else body,
        route=_route(declared),
    )


def _route(declared: Declared) -> str:
    return f"{declared.method} {declared.path}"


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
