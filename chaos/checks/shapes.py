"""Shapes of answers, and what of one shape a client of another would miss. Pure: on JSON Schemas as they were inferred (genson).

A shape is, by status as text: {'count', 'media': [...], 'headers': names on every answer, 'seen': names on any, 'schema' or null}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Shape = dict[str, Any]  # JSON
# Fields of the connection, of caches and of whoever serves: no client's contract.
INCIDENTAL = frozenset(
    {
        "date", "server", "connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "via",
        "x-powered-by", "age", "x-cache", "x-cache-hits", "x-runtime", "x-response-time", "x-process-time", "server-timing",
        "traceparent", "tracestate", "alt-svc", "nel", "report-to", "expect-ct", "vary", "set-cookie", "x-served-by",
        "x-timer", "x-aspnet-version", "x-aspnetmvc-version", "accept-ranges", "trailer", "upgrade",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Break:
    """A difference. `at` is where: '' for the answer as a whole, 'media', 'header:x', or '200:$.items[].id'."""

    at: str
    text: str
    breaking: bool = True

    def within(self, places: frozenset[str]) -> bool:
        """Whether it is at one of the places, or below one."""
        return any(self.at == place or self.at.startswith((f"{place}.", f"{place}[")) for place in places)


def control(first: Mapping[str, Shape], second: Mapping[str, Shape]) -> frozenset[str]:
    """Where the baseline differs from itself: nothing can be expected there."""
    pairs = ((first, second), (second, first)) if first and second else ()
    return frozenset(one.at for pair in pairs for one in compare(*pair) if one.at not in {"", "media"})  # of those all are known


def compare(before: Mapping[str, Shape], after: Mapping[str, Shape]) -> list[Break]:
    """What a client of `before` finds changed in `after`, both by status."""
    if not after:
        return [Break("", f"answered {_listed(before)} before, and not at all now")]
    found = []
    if new := set(after) - set(before):
        found.append(Break("", f"status {_listed(before)} became {_listed(new)}"))
    for status in before.keys() & after.keys():
        found += _same_status(status, before[status], after[status])
    return found


def _same_status(status: str, before: Shape, after: Shape) -> Iterator[Break]:
    if new := set(after["media"]) - set(before["media"]):
        yield Break("media", f"{status}: media type {_listed(before['media'])} became {_listed(new)}")
    for name in sorted(set(before["headers"]) - INCIDENTAL):
        if name not in after["seen"]:
            yield Break(f"header:{name}", f"{status}: the response header {name} is gone")
        elif name not in after["headers"]:
            yield Break(f"header:{name}", f"{status}: the response header {name} is not on every answer any more", breaking=False)
    for name in sorted(set(after["headers"]) - set(before["seen"]) - INCIDENTAL):
        yield Break(f"header:{name}", f"{status}: response header {name} added", breaking=False)
    if before["schema"] is not None and after["schema"] is not None:
        yield from (
            Break(f"{status}:{one.at}", f"{status}: {one.text}", one.breaking)
            for one in members(before["schema"], after["schema"])
        )


def members(before: Shape, after: Shape, at: str = "$") -> Iterator[Break]:
    """The same for two JSON Schemas: types, members that were always there, and what is new."""
    old, new = _types(before), _types(after)
    yield from _type_changes(old, new, at)
    if "object" in old and "object" in new:
        yield from _objects(old["object"], new["object"], at)
    if "array" in old and "array" in new:
        one, other = old["array"].get("items"), new["array"].get("items")
        if one and other:  # an empty array tells nothing of what would be in it
            yield from members(one, other, f"{at}[]")


def _type_changes(old: Mapping[str, Shape], new: Mapping[str, Shape], at: str) -> Iterator[Break]:
    known, other = set(old) - {"null"}, set(new) - {"null"}
    if not known:  # only nulls were seen: what would be there otherwise is not known
        return
    wider = {"number"} if "integer" in known else set()
    narrower = {"integer"} if "number" in known else set()
    if strange := other - known - wider - narrower:
        yield Break(at, f"{at} was {_listed(known)} and is {_listed(strange)}")
    elif not other and "null" not in old:
        yield Break(at, f"{at} was {_listed(known)} and is null")
    elif "null" in new and "null" not in old:
        yield Break(at, f"{at} can be null now", breaking=False)
    elif other & wider - known:
        yield Break(at, f"{at} can have a fraction now", breaking=False)


def _objects(old: Shape, new: Shape, at: str) -> Iterator[Break]:
    before, after = old.get("properties", {}), new.get("properties", {})
    always = set(old.get("required", ()))
    for name in sorted(always):
        if name not in after:
            yield Break(f"{at}.{name}", f"member {at}.{name} is gone")
        elif name not in new.get("required", ()):
            yield Break(f"{at}.{name}", f"member {at}.{name} was always there, and is not any more")
    for name in sorted(set(after) - set(before)):
        yield Break(f"{at}.{name}", f"member {at}.{name} added", breaking=False)
    for name in sorted(set(before) & set(after)):
        yield from members(before[name], after[name], f"{at}.{name}")


def _types(schema: Shape) -> dict[str, Shape]:
    """Type -> the schema for values of it. genson gives one type, a list of types, or 'anyOf' with one schema each."""
    found: dict[str, Shape] = {}
    for one in schema.get("anyOf", (schema,)):
        kinds = one.get("type", ())
        found |= dict.fromkeys([kinds] if isinstance(kinds, str) else kinds, one)
    return found


def _listed(values: object) -> str:
    return " or ".join(sorted(str(one) or "(none)" for one in values)) or "nothing"  # type: ignore[attr-defined]
