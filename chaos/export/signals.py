"""Which of a target's metrics plays which role (chaos/checks/panels.toml), as PromQL selects it.

A name comes from [target.metrics] names, else from an exposition of the target's that was handed over (`--metrics FILE`), else it is
what the bundled service calls it. What none of them has is None: nothing is exported for it, and the file says so.
Label values are quoted as PromQL does (https://prometheus.io/docs/prometheus/latest/querying/basics/#string-literals).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chaos.checks import panels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chaos.checks.panels import Series

# Where nothing says how a status label is called, the usual four are asked for.
USUAL_STATUS = ("status", "code", "status_code", "http_response_status_code")
USUAL_ROUTES = ("route", "path", "handler", "uri", "http_route", "endpoint")
_CLASSIC = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_ERRORS_ONLY = re.compile(r"[45]xx|error|fail|exception", re.IGNORECASE)
_SUFFIX = re.compile(r"_(bucket|count|sum)$")


def quoted(text: str) -> str:
    """A PromQL string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\0", "")
    return f'"{escaped}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Matcher:
    """One condition on a label: `op` is '=', '!=' or '=~'."""

    label: str
    value: str
    op: str = "="

    def __str__(self) -> str:
        return f"{self.label}{self.op}{quoted(self.value)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """The metric of one role. `spellings`: a declared counter may be served with or without its suffix.

    `status` and `route` are the labels that may say which status and which route; `quantiles` are those of a summary without buckets.
    """

    role: str
    name: str
    spellings: tuple[str, ...] = ()
    labels: tuple[Matcher, ...] = ()
    status: tuple[str, ...] = ()
    route: tuple[str, ...] = ()
    quantiles: tuple[str, ...] = ()

    @property
    def unit(self) -> float:
        """1000 for a histogram of milliseconds."""
        return 1000.0 if re.search(r"_(ms|millis|milliseconds)(_|$)", self.name) else 1.0

    @property
    def counts_errors_only(self) -> bool:
        """Nothing can be divided by it: requests that went well are not in it."""
        return bool(_ERRORS_ONLY.search(self.name))

    def select(self, *more: Matcher, suffix: str = "") -> str:
        """An instant vector selector."""
        matchers = [*self.labels, *(one for one in more if one.label not in {own.label for own in self.labels})]
        name = self.name + suffix
        if len(self.spellings) > 1:
            matchers = [Matcher(label="__name__", value="|".join(map(re.escape, self.spellings)), op="=~"), *matchers]
            name = ""
        elif not _CLASSIC.fullmatch(name):  # since Prometheus 3: https://prometheus.io/docs/guides/utf8/
            return "{" + ", ".join([quoted(name), *map(str, matchers)]) + "}"
        inside = ", ".join(map(str, matchers))
        return f"{name}{{{inside}}}" if inside else name

    def ranged(self, function: str, window: str, *, status: str = "", suffix: str = "") -> str:
        """`function` over a window; with `status` (a regular expression) of those answers, under whatever label says so."""
        wanted: list[tuple[Matcher, ...]] = [()]
        if status and not any(own.label.lower() in panels.STATUS for own in self.labels) and self.status:
            wanted = [(Matcher(label=label, value=status, op="=~"),) for label in self.status]
        return " or ".join(f"{function}({self.select(*some, suffix=suffix)}[{window}])" for some in wanted)

    def without_status(self) -> Signal:
        """The same of all answers."""
        return replace(self, labels=tuple(one for one in self.labels if one.label.lower() not in panels.STATUS))


@dataclass(frozen=True, slots=True)
class Signals:
    """Role -> its signal; None when the target has none."""

    found: Mapping[str, Signal | None]

    def __getitem__(self, role: str) -> Signal | None:
        return self.found[role]

    @property
    def requests(self) -> Signal | None:
        """All requests: what errors are divided by. None when only errors are counted."""
        errors = self.found["errors_5xx"]
        return errors.without_status() if errors is not None and not errors.counts_errors_only else None

    def narrowed(self, *more: Matcher) -> Signals:
        """The same, with more conditions on every one."""
        return Signals({role: replace(one, labels=(*one.labels, *more)) if one else None for role, one in self.found.items()})

    def missing(self) -> tuple[str, ...]:
        """The roles that nothing is exported for."""
        return tuple(role for role, one in self.found.items() if one is None)


def signals(names: Mapping[str, str], *, seen: Sequence[Series] | None = None, job: str = "") -> Signals:
    """All roles. `names` are chaos.toml's, `seen` the samples of an exposition, `job` what Prometheus calls the target."""
    by_role = panels.recognise(seen, {key: name for key, name in names.items() if name}) if seen is not None else {}
    scraped = (Matcher(label="job", value=job),) if job else ()
    found: dict[str, Signal | None] = {}
    for role in panels.roles():
        name = names.get(role.id)
        if name == "":
            one = None
        elif seen is not None:
            one = _seen(role, by_role[role.id], name)
            one = replace(one, quantiles=_quantiles(seen, one.name)) if one and role.kind == "histogram" else one
        else:
            one = _declared(role, name) if name else _of_reference(role)
        found[role.id] = replace(one, labels=(*scraped, *(own for own in one.labels if own.label != "job"))) if one else None
        if one is not None and any(own.label == "job" for own in one.labels):
            found[role.id] = one  # it says itself under which job
    return Signals(found)


def _parse(text: str) -> tuple[str, tuple[Matcher, ...]]:
    name, labels = panels.named(text)
    return name, tuple(Matcher(label=label, value=value) for label, value in labels.items())


def _of_reference(role: panels.Role) -> Signal:
    """By the bundled service's own names: all of it is known."""
    name, labels = _parse(role.reference)
    return Signal(role=role.id, name=name, labels=labels, status=("status",), route=("route",))


def _declared(role: panels.Role, text: str) -> Signal:
    """As chaos.toml says; what it does not say is asked for under every usual name."""
    name, labels = _parse(text)
    if role.kind == "histogram":
        return Signal(role=role.id, name=_SUFFIX.sub("", name), labels=labels, route=USUAL_ROUTES)
    spellings = () if role.kind == "gauge" or re.search(r"_(total|count)$", name) else (name, f"{name}_total", f"{name}_count")
    return Signal(role=role.id, name=name, spellings=spellings, labels=labels, status=USUAL_STATUS, route=USUAL_ROUTES)


def _seen(role: panels.Role, some: Sequence[Series], declared: str | None) -> Signal | None:
    """By what the target was seen to serve; None when there is nothing of the kind, whatever is declared."""
    if not some:
        return None
    name = Counter(one.name for one in some).most_common(1)[0][0]
    own = [one for one in some if one.name == name]
    labels = _parse(declared)[1] if declared else _states(role, own)
    base = _SUFFIX.sub("", name) if role.kind == "histogram" else name
    keys = sorted({key for one in own for key in one.labels})
    return Signal(
        role=role.id,
        name=base,
        labels=labels,
        status=tuple(key for key in keys if key.lower() in panels.STATUS),
        route=tuple(key for key in keys if key.lower() in panels.ROUTES)[:1],
    )


def _quantiles(seen: Sequence[Series], name: str) -> tuple[str, ...]:
    """Those of a summary; () for a histogram, of which any can be computed."""
    if any(one.name == f"{name}_bucket" for one in seen):
        return ()
    return tuple(sorted({one.labels["quantile"] for one in seen if one.name == name and "quantile" in one.labels}))


def _states(role: panels.Role, own: Sequence[Series]) -> tuple[Matcher, ...]:
    """Of a gauge that has states, the one that counts."""
    for one in own:
        for key, value in one.labels.items():
            if value.lower() in role.labels:
                return (Matcher(label=key, value=value),)
    return ()
