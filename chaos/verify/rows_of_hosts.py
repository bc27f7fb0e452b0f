"""Hosts: what was served, what was refused, and with which status - counted again from the raw requests of each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.verify.expected import Expected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.verify.gates import Policy
    from chaos.verify.records import Record, Row

NO_SAY = {429, 503}  # too many requests, no capacity: nothing about the host
TURNED_AWAY = {400, 403, 421}
CLASSES = ("unknown", "absent", "bad")
SERVED, LISTED = "sec.unknown_host_2xx", "sec.host_allowlist"


def _redirect(one: Row) -> bool:
    return one["status"] is not None and 300 <= one["status"] < 400


def let_in(one: Row) -> bool:
    """2xx, 101, or a redirect to the very host that must be refused."""
    status = one["status"]
    if status is None:
        return False
    leads = one["error"].startswith(("reflected in location", "reflected in refresh"))
    return 200 <= status < 300 or status == 101 or (_redirect(one) and leads)


def hosts(record: Record, policy: Policy) -> Iterator[Expected]:
    """One a row that speaks for one of the two counted gates, one a class of refusals."""
    asked = [one for one in record.tables["operation"] if one["kind"] == "host"]
    by_row: dict[str, list[Row]] = {}
    for one in asked:
        by_row.setdefault(one["row"], []).append(one)
    for finding in record.tables["finding"]:
        mine = by_row.get(finding["check"], [])
        judged = finding["outcome"] in {"pass", "fail"}
        if mine and judged and finding["gate"] == SERVED:
            bad = sum(map(let_in, mine))
            yield Expected(finding["check"], n=len(mine), bad=bad, outcome="fail" if bad else "pass")
        if mine and judged and finding["gate"] == LISTED:
            bad = sum(one["status"] is None or one["status"] in TURNED_AWAY for one in mine)
            yield Expected(finding["check"], n=len(mine), bad=bad, outcome="fail" if bad else "pass")
    redirecting = any(one["row"] == "H01" and _redirect(one) and let_in(one) for one in asked)
    refusals = [one for one in asked if not let_in(one) and one["status"] not in NO_SAY and not (redirecting and _redirect(one))]
    for kind in CLASSES:
        mine = [one for one in refusals if policy["host_rows"].get(one["row"]) == kind]
        yield Expected(f"hosts.400.{kind}", n=len(mine), bad=sum(one["status"] != 400 for one in mine))
