"""From the account of a long run to findings, gate by gate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.checks.longrun import delta, oddities
from chaos.checks.longrun.trends import FEWEST, SIZES
from chaos.hours import UNSEEN, WANTED, Colour
from chaos.model import Finding, Outcome
from chaos.statistics import judge_rate, lower, needed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.checks.longrun.account import Account
    from chaos.checks.longrun.tally import Rate
    from chaos.hours import Judged

AVAILABILITY, BUDGET, HANDSHAKES = "rel.availability", "rel.error_budget", "sec.tls_handshake"
LET_IN, REFUSED, DURABILITY, GO = "sec.unknown_host_2xx", "sec.unknown_host_400", "res.durability", "rep.go"
EXPERIMENT = "soak"
HEALTHY = "a healthy answer to every healthy request outside of faults; one that was dropped or never answered counts as bad"
TOLD = 20  # anomalies that become findings; the account has all


def findings(account: Account) -> tuple[Finding, ...]:
    """Those that the run has anything to say about; the streak and the trends always."""
    found = [
        *_rates(account),
        *_hosts(account),
        *_writes(account),
        _streak(account),
        _trends(account),
        *_delta(account),
        *_told(account),
    ]
    again = account.limits.rerun.replace("chaos-gate run", "chaos-gate soak", 1)
    rerun = f"{again} --hours {account.planned or WANTED:g} --seed {account.limits.seed}"
    return tuple(replace(one, check=f"{EXPERIMENT}.{one.check}", experiment=EXPERIMENT, rerun=rerun) for one in found)


def _outcome(rate: Rate, limit: float, deff: float) -> Outcome:
    """A check fails only where its own sample proves it; whether the rate is proven is the gate's business."""
    return Outcome.FAIL if lower(rate.bad / deff, rate.n / deff) > limit else Outcome.PASS


def _rates(account: Account) -> Iterator[Finding]:
    """Availability, budget, latency and handshakes of the steady time."""
    rates, limits = account.rates, account.limits.rates
    if rate := rates.get(AVAILABILITY):
        deff = rate.deff
        text = f"{rate.bad:,} of {rate.n:,} requests failed outside of faults{_bursts(rate, deff)}{_beside(account)}"
        yield Finding(
            check="availability",
            gate=AVAILABILITY,
            outcome=_outcome(rate, limits[AVAILABILITY], deff),
            detail=text,
            expected=HEALTHY,
            n=rate.n,
            bad=rate.bad,
            deff=deff,
            seconds=rate.seconds,
        )
        budget = account.budget()
        month = budget.projected * limits[AVAILABILITY]
        text = (
            f"{budget.bad:,} failed requests are {budget.burned:.2%} of a month's error budget ({limits[AVAILABILITY]:.2%} of the "
            f"{budget.projected:,.0f} requests that 30 days at this rate come to: {month:,.0f}); as a rate that is "
            f"{budget.bad / budget.n:.4%}, and 5 % of the budget in 48 hours is {limits[BUDGET]:.3%}"
        )
        outcome = _outcome(rate, limits[BUDGET], deff)
        yield Finding(
            check="budget",
            gate=BUDGET,
            outcome=outcome,
            detail=text,
            measured=budget.burned,
            expected=HEALTHY,
            n=rate.n,
            bad=rate.bad,
            deff=deff,
            seconds=rate.seconds,
        )
    for name, gate, share in (("p95", "rel.p95", 0.95), ("p99", "rel.p99", 0.99)):
        yield from _latency(account, name, gate, share)
    if rate := rates.get(HANDSHAKES):
        yield Finding(
            check="handshakes",
            gate=HANDSHAKES,
            outcome=Outcome.PASS,
            detail=f"{rate.bad:,} of {rate.n:,} handshakes failed in minutes in which nothing was broken",
            n=rate.n,
            bad=rate.bad,
            deff=rate.deff,
            seconds=rate.seconds,
            expected="handshakes with the right server succeed",
        )


def _bursts(rate: Rate, deff: float) -> str:
    return f", in bursts: they say as much as {rate.n / deff:,.0f} independent ones" if deff > 1.05 else ""


def _beside(account: Account) -> str:
    bad, n = account.faulted
    return f"; beside that, {bad:,} of {n:,} while something was broken on purpose" if n else ""


def _latency(account: Account, name: str, gate: str, share: float) -> Iterator[Finding]:
    limit = account.limits.seconds.get(gate)
    if not limit:
        return
    expected = f"at most {account.limits.rates[gate]:.3g} of the reads above {limit * 1000:.0f} ms, outside of faults"
    slipped = (
        f"; {account.slipped} of {account.minutes} records are left out, in which the sender was late" if account.slipped else ""
    )
    rate = account.rates.get(gate)
    if rate is None:
        if account.slipped:
            yield Finding(
                check=name,
                gate=gate,
                outcome=Outcome.INCONCLUSIVE,
                detail=f"no read can be judged{slipped}",
                expected=expected,
            )
        return
    deff, took = rate.deff, account.quantile(share)
    yield Finding(
        check=name,
        gate=gate,
        outcome=_outcome(rate, account.limits.rates[gate], deff),
        detail=f"{rate.bad:,} of {rate.n:,} reads took longer than {limit * 1000:.0f} ms; "
        f"{name.upper()} was {took * 1000:.0f} ms{slipped}",
        n=rate.n,
        bad=rate.bad,
        deff=deff,
        measured=took,
        seconds=rate.seconds,
        expected=expected,
    )


def _hosts(account: Account) -> Iterator[Finding]:
    """Unknown hosts that were asked for all the time."""
    if rate := account.rates.get(LET_IN):
        outcome = Outcome.FAIL if rate.bad else Outcome.PASS
        text = f"{rate.bad:,} of {rate.n:,} requests to unknown hosts were served"
        yield Finding(
            check="hosts.2xx",
            gate=LET_IN,
            outcome=outcome,
            detail=text,
            n=rate.n,
            bad=rate.bad,
            seconds=rate.seconds,
            expected="refused",
        )
    if rate := account.rates.get(REFUSED):
        deff = rate.deff
        # A sample too small to prove anything, with no bad one in it, is no reason to doubt what the other classes of input prove.
        few = not rate.bad and rate.n < needed(account.limits.rates[REFUSED])
        yield Finding(
            check="hosts.400",
            gate=REFUSED,
            outcome=_outcome(rate, account.limits.rates[REFUSED], deff),
            detail=f"{rate.n - rate.bad:,} of {rate.n:,} refusals of unknown hosts were 400{', too few to count' if few else ''}",
            n=0 if few else rate.n,
            bad=rate.bad,
            deff=deff,
            seconds=rate.seconds,
            expected="400 (RFC 9112, 3.2)",
        )


def _writes(account: Account) -> Iterator[Finding]:
    """Every write that was looked up, in faults too."""
    checked = int(account.totals.get("writes.checked", 0))
    lost, doubled = int(account.totals.get("writes.lost", 0)), int(account.totals.get("writes.doubled", 0))
    if not checked + lost + doubled:
        return
    yield Finding(
        check="writes",
        gate=DURABILITY,
        outcome=Outcome.FAIL if lost + doubled else Outcome.PASS,
        detail=f"{checked:,} acknowledged writes looked up: {lost} lost, {doubled} applied twice",
        n=max(checked, lost + doubled),
        bad=lost + doubled,
        expected="a write that was acknowledged is there, once (2xx means done: RFC 9110, 15.3)",
    )


def _streak(account: Account) -> Finding:
    """48 consecutive green hours, and the whole window's upper bounds."""
    hours, counted = account.hours(), account.streak()
    worst = next((one for one in hours if one.colour is Colour.RED), None)
    text = (
        f"{counted.longest} green hours in a row, {WANTED} wanted ({counted.green} green, {counted.grey} grey, {counted.red} red)"
    )
    text += ", on a simulated clock" if account.compressed else ""
    if not counted.reached:
        outcome = Outcome.FAIL if worst else Outcome.INCONCLUSIVE
        why = _why(hours, worst, WANTED - counted.now)
    else:
        outcome, why = _whole(account)
    expected = f"{WANTED} consecutive green hours, and the whole run's upper bounds within their limits"
    return Finding(
        check="streak",
        gate=GO,
        outcome=outcome,
        detail=f"{text}{why}",
        measured=float(counted.longest),
        expected=expected,
    )


def _why(hours: tuple[Judged, ...], worst: Judged | None, missing: int) -> str:
    """What stands between this and 48 hours."""
    more = f"needs {missing} more green hour{'' if missing == 1 else 's'}"
    if worst:
        return f": hour {worst.number} was red, {worst.why}; {more} from here on"
    grey = max((one for one in hours if one.colour is Colour.GREY), key=lambda one: one.unseen, default=None)
    told = f"; hour {grey.number} was grey, {grey.why}" if grey else ""
    if grey and grey.unseen:
        told += f" (at most {UNSEEN:.1%} of the time may be unseen: it might have been an outage)"
    return f": {more}{told}"


def _whole(account: Account) -> tuple[Outcome, str]:
    """The whole window's bounds, once the hours are there."""
    for gate, rate in account.rates.items():
        limit = account.limits.rates.get(gate, 0.0)
        outcome = judge_rate(rate.bad, rate.n, limit, deff=rate.deff) if limit else Outcome.FAIL if rate.bad else Outcome.PASS
        if outcome is not Outcome.PASS:
            said = "breaks" if outcome is Outcome.FAIL else "does not prove"
            return outcome, f"; but the whole run {said} {gate}: {rate.bad:,} of {rate.n:,}"
    return Outcome.PASS, "; the whole run's bounds hold"


def _trends(account: Account) -> Finding:
    """Whether anything grows without end."""
    known = oddities.trends(account.each_hour(), warm=oddities.warm_up(account.planned))
    leaks = [one for one in account.anomalies() if one.judged]
    names = [SIZES[name].title for name, one in known.items() if one is not None]
    expected = "memory, connections and latency come to rest: nothing grows by what would double it in a month"
    if leaks:
        text = "; ".join(one.detail for one in leaks)
        return Finding(
            check="leaks",
            gate=GO,
            outcome=Outcome.FAIL,
            detail=text,
            bad=len(leaks),
            n=len(known),
            expected=expected,
        )
    if not names:
        text = (
            f"leaks cannot be told from warming up and from a day's cycle in less than {FEWEST:.0f} hours after the first tenth"
        )
        return Finding(
            check="leaks",
            gate=GO,
            outcome=Outcome.INCONCLUSIVE,
            detail=text,
            expected=expected,
        )
    missing = [SIZES[name].title for name in SIZES if name not in known]
    text = f"none of these grows without end: {', '.join(names)}" + (f"; not observed: {', '.join(missing)}" if missing else "")
    return Finding(
        check="leaks",
        gate=GO,
        outcome=Outcome.PASS,
        detail=text,
        n=len(names),
        expected=expected,
    )


def _delta(account: Account) -> Iterator[Finding]:
    """The candidate against its baseline, where both were seen."""
    baseline, candidate = account.arms.get(delta.BASELINE), account.arms.get(delta.CANDIDATE)
    if baseline is not None:
        yield delta.judged(baseline, candidate or delta.Arm(), recorded=account.recorded)


def _told(account: Account) -> Iterator[Finding]:
    """Hours that stick out: told, with a severity, and never counted."""
    for one in [one for one in account.anomalies() if not one.judged][:TOLD]:
        check = f"odd.{one.what.split()[0].lower()}.{one.hours[0]}"
        yield Finding(
            check=check,
            gate=GO,
            outcome=Outcome.NOT_APPLICABLE,
            detail=f"{one.detail}; told, not judged",
            severity="info",
        )
