"""No 400 that turns into a 500: a request that deserves a 4xx gets one, whatever has happened to the database.

A request counts as flipped when it is answered 5xx. One that gets no answer at all is not a flip; it is late, or the target is
dead, and the check of the outage says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.checks.recovery import describe
from chaos.model import Finding, History, Kind, Outcome

if TYPE_CHECKING:
    from chaos.checks.limits import Limits


def check(history: History, limits: Limits) -> Finding | None:
    """The finding for rel.no_400_to_500; None when no invalid request is configured."""
    del limits
    asked = [one for one in history.operations if one.kind is Kind.INVALID]
    if not asked:
        return None
    window = history.windows[0] if history.windows else None
    inside = [one for one in asked if window is None or one.started >= window.injected]
    answered = [one for one in inside if one.status is not None]
    flipped = [one for one in answered if one.status is not None and one.status >= 500]
    served = [one for one in answered if one.status is not None and one.status < 400]
    where = f"under {window.fault}" if window else "with nothing broken"
    if flipped:
        kinds = sorted({f"{one.method} {one.path}" for one in flipped})
        outcome = Outcome.FAIL
        detail = f"{len(flipped)} of {len(answered)} requests that deserve a 4xx got a 5xx {where}: {', '.join(kinds[:4])}"
    elif not answered:
        outcome, detail = Outcome.INCONCLUSIVE, f"no request that deserves a 4xx was answered {where}"
    elif served and len(served) == len(answered) and window is None:
        outcome = Outcome.INCONCLUSIVE
        detail = f"{served[0].method} {served[0].path} was answered {served[0].status}: it does not deserve a 4xx"
    else:
        outcome, detail = Outcome.PASS, f"{len(answered)} requests that deserve a 4xx, none got a 5xx {where}"
    return Finding(
        check=f"invalid.{history.experiment}",
        gate="rel.no_400_to_500",
        outcome=outcome,
        detail=detail,
        n=len(answered),
        bad=len(flipped),
        expected="what the client did wrong stays the client's error (RFC 9110, 15.5), whatever is wrong behind the server",
        examples=tuple(describe(one) for one in flipped[:3]),
    )
