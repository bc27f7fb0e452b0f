"""Prometheus text as data, and which of its series are for which panel of the dashboards (panels.toml)."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STATUS = frozenset(
    [
        "status",
        "code",
        "status_code",
        "statuscode",
        "http_status",
        "http_status_code",
        "http_response_status_code",
        "response_code",
        "http_code",
        "class",
    ]
)
ROUTES = frozenset(
    [
        "route",
        "path",
        "uri",
        "endpoint",
        "handler",
        "http_route",
        "url",
        "view",
        "resource",
        "controller",
        "action",
        "template",
        "http_target",
        "rule",
        "name",
        "operation",
    ]
)
_STATUS_VALUE = re.compile(r"([1-5])(?:\d\d|xx)", re.IGNORECASE)
_NAMED = re.compile(r"([\w:.]+)(?:\{(.*)\})?", re.DOTALL)
_LABEL = re.compile(r'(\w+)\s*=\s*"([^"]*)"')


class NotPrometheusError(ValueError):
    """What was served is no Prometheus text. A finding is made of it; nobody's run ends."""


@dataclass(frozen=True, slots=True)
class Series:
    """One sample: name, labels, value; `kind` is what `# TYPE` says."""

    name: str
    labels: Mapping[str, str]
    value: float
    kind: str = "unknown"

    @property
    def key(self) -> str:
        """Name and labels as text, the same for the same series."""
        return self.name + json.dumps(dict(sorted(self.labels.items())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A row of panels.toml."""

    id: str
    title: str
    kind: str
    names: str
    reference: str
    unless: str = ""
    status: str = ""
    labels: tuple[str, ...] = ()
    firm: bool = False


@cache
def roles() -> tuple[Role, ...]:
    """All rows."""
    table = tomllib.loads(files("chaos.checks").joinpath("panels.toml").read_text(encoding="utf-8"))["roles"]
    return tuple(Role(id=key, **{**row, "labels": tuple(row.get("labels", ()))}) for key, row in table.items())


def read(text: str, media_type: str = "") -> list[Series]:
    """The samples of an exposition, in Prometheus' text format or OpenMetrics'. Raises NotPrometheusError."""
    from prometheus_client import parser  # noqa: PLC0415  (only where metrics are judged)
    from prometheus_client.openmetrics import parser as openmetrics  # noqa: PLC0415  (the same)

    parse = openmetrics.text_string_to_metric_families if "openmetrics" in media_type else parser.text_string_to_metric_families
    try:
        found = [
            Series(sample.name, dict(sample.labels), float(sample.value), family.type)
            for family in parse(text)
            for sample in family.samples
        ]
    except Exception as error:  # the parser raises ValueError, KeyError, IndexError, as it happens
        first = next((line for line in text.splitlines() if line.strip()), "(nothing)")
        raise NotPrometheusError(
            f"no Prometheus text ({type(error).__name__}: {error})"[:160] + f"; it begins: {first[:80]}"
        ) from error
    if not found:
        raise NotPrometheusError("not one sample")
    return found


def recognise(series: Sequence[Series], names: Mapping[str, str]) -> dict[str, list[Series]]:
    """Role -> its series. `names` (role -> metric, perhaps with labels) is what the team says, and then nothing else counts."""
    return {role.id: _declared(series, names[role.id]) if role.id in names else _by_name(role, series) for role in roles()}


def named(text: str) -> tuple[str, dict[str, str]]:
    """'pool{state="busy"}' as its name and its labels."""
    found = _NAMED.fullmatch(text.strip())
    return (found[1], dict(_LABEL.findall(found[2] or ""))) if found else (text, {})


def _declared(series: Sequence[Series], name: str) -> list[Series]:
    metric, labels = named(name)
    wanted = {metric, f"{metric}_total", f"{metric}_count"}
    return [one for one in series if one.name in wanted and labels.items() <= one.labels.items()]


def _by_name(role: Role, series: Sequence[Series]) -> list[Series]:
    found = [
        one
        for one in series
        if re.fullmatch(role.names, one.name, re.IGNORECASE)
        and not (role.unless and re.fullmatch(role.unless, one.name, re.IGNORECASE))
        and _kind(role, one)
    ]
    if role.status:
        return [one for one in found if status(one)]
    if role.kind == "histogram":
        shown = {re.sub(r"_bucket$", "", one.name) for one in found if one.name.endswith("_bucket") or "quantile" in one.labels}
        return [one for one in found if one.name.endswith("_count") and one.name.removesuffix("_count") in shown]
    if role.labels:
        telling = [one for one in found if _telling(role, one)]
        stated = {one.name for one in telling}
        return [*telling, *(one for one in found if one.name not in stated and _plainly(one))]
    return found


def _telling(role: Role, one: Series) -> bool:
    return any(value.lower() in role.labels for value in one.labels.values())


def _plainly(one: Series) -> bool:
    """A gauge without a state among its labels has to say in its name what it counts."""
    return bool(re.search(r"in_?use|busy|active|acquired|checked_?out|used", one.name, re.IGNORECASE))


def _kind(role: Role, one: Series) -> bool:
    if role.kind == "gauge":
        return one.kind in {"gauge", "unknown", "untyped"}
    if role.kind == "counter":
        return one.kind != "gauge" and not one.name.endswith(("_bucket", "_sum", "_created")) and "quantile" not in one.labels
    return True


def status(one: Series) -> str:
    """First digit of the HTTP status among its labels; '' when there is none."""
    for name, value in one.labels.items():
        found = _STATUS_VALUE.fullmatch(value.strip())
        if found and name.lower() in STATUS:
            return found[1]
    return ""


def routed(some: Sequence[Series]) -> bool:
    """Whether any of them says for which route it is."""
    return any(name.lower() in ROUTES for one in some for name in one.labels)


def totals(role: Role, some: Sequence[Series]) -> dict[str, float]:
    """Metric -> sum over the series that count for this role: of errors those with the role's status, of gauges the largest sum."""
    summed: dict[str, float] = {}
    for one in some:
        if role.status and status(one) != role.status:
            summed.setdefault(one.name, 0.0)
            continue
        if one.value == one.value:
            summed[one.name] = summed.get(one.name, 0.0) + one.value
    return summed


def snapshot(series: Sequence[Series], names: Mapping[str, str]) -> dict[str, Any]:
    """What a scrape comes to for the checks: role -> metric -> value; and the roles of errors that say no route."""
    found = recognise(series, names)
    return {
        "values": {role.id: totals(role, found[role.id]) for role in roles()},
        "unrouted": [role.id for role in roles() if role.status and found[role.id] and not routed(found[role.id])],
    }
