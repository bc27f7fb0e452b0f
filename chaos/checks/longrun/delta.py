"""rel.delta: a candidate against its baseline, interleaved or recorded, from intervals.

Latency of the reads by the ratio of its P95 and P99, throughput by the good answers a second, each within 5 % with one-sided 95 %
bounds. Blocks are minutes, or more of them in a long run (at most `BLOCKS` an arm), and whole blocks are drawn again. Both arms have to
have been asked the same: another mix or another rate is another service.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from chaos.checks.longrun.tally import HEALTHY, is_read, offered
from chaos.comparison import FEWEST, Ratio, quantile_ratio_of_counts, throughput_ratio, within
from chaos.histogram import Histogram, merged
from chaos.model import Finding, History, Interval, Kind, Outcome, worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GATE = "rel.delta"
FAMILY = "baseline"
BASELINE, CANDIDATE = "baseline", "candidate"
BLOCKS = 240
LIMIT = 1.05
NEEDED = {0.95: 8_000, 0.99: 25_000}  # reads an arm below which 5 % cannot be told (statistics.md, Rates)
SHARE, RATE = 0.02, 0.05  # by which shares of the mix, and the rates, may differ
MINUTE = 60.0


@dataclass(slots=True)
class Block:
    """One stretch of time of one arm. `latency` is the text of its reads' histogram; `asked` is by sample."""

    started: float
    seconds: float
    latency: str
    good: int
    asked: Counter[str]


@dataclass(slots=True)
class Arm:
    """What one release was asked and how it answered, in blocks of a minute; neighbours become one block when there are too many."""

    blocks: list[Block] = field(default_factory=list)
    reads: int = 0

    def add(self, intervals: Iterable[Interval]) -> None:
        """Those of one minute, in order of time; only steady ones count."""
        used = [one for one in intervals if one.stratum == "steady" and one.kind in HEALTHY]
        if not used:
            return
        reads = merged(one.latency for one in used if is_read(one))
        self.reads += len(reads)
        seconds = max(one.seconds * one.covered for one in used)
        asked = Counter[str]()
        for one in used:
            asked[one.sample] += offered(one)
        self.blocks.append(Block(used[0].started, seconds, reads.text(), sum(one.good for one in used), asked))
        if len(self.blocks) > BLOCKS:
            self.blocks = [_joined(self.blocks[i : i + 2]) for i in range(0, len(self.blocks), 2)]

    @property
    def seconds(self) -> float:
        """For how long it was asked."""
        return sum(one.seconds for one in self.blocks)

    @property
    def asked(self) -> Counter[str]:
        """By sample, in all."""
        return sum((one.asked for one in self.blocks), Counter[str]())


def _joined(blocks: Sequence[Block]) -> Block:
    return Block(
        blocks[0].started,
        sum(one.seconds for one in blocks),
        merged(one.latency for one in blocks).text(),
        sum(one.good for one in blocks),
        sum((one.asked for one in blocks), Counter[str]()),
    )


def arm(intervals: Iterable[Interval]) -> Arm:
    """Of intervals in any order."""
    minutes: dict[int, list[Interval]] = {}
    for one in intervals:
        minutes.setdefault(int(one.started // MINUTE), []).append(one)
    filled = Arm()
    for _, mine in sorted(minutes.items()):
        filled.add(mine)
    return filled


def compared(baseline: Iterable[Interval], candidate: Iterable[Interval], *, recorded: bool = False) -> Finding:
    """The finding for rel.delta. `recorded`: the baseline was another run's, so that it was not interleaved."""
    return judged(arm(baseline), arm(candidate), recorded=recorded)


def judged(baseline: Arm, candidate: Arm, *, recorded: bool, paired: bool = False) -> Finding:
    """The same, of arms that are filled already. `paired`: their blocks are the same stretches of time, in which both were asked."""
    base = Finding(
        check="delta",
        gate=GATE,
        outcome=Outcome.INCONCLUSIVE,
        detail=_unlike(baseline, candidate),
        n=baseline.reads + candidate.reads,
        seconds=baseline.seconds + candidate.seconds,
        expected="P95, P99 and throughput within 5 % of the baseline (upper 95 % bound of the ratio)",
    )
    if base.detail:
        return base
    ratios = {f"P{round(q * 100)}": _latency(baseline, candidate, q, paired=paired) for q in NEEDED}
    ratios["throughput"] = throughput_ratio(
        [(one.good, one.seconds) for one in baseline.blocks], [(one.good, one.seconds) for one in candidate.blocks]
    )
    outcome = worst(within(one, LIMIT) for one in ratios.values())
    said = "; ".join(f"{name} {_said(one)}" for name, one in ratios.items())
    how = "a recorded run, so what the machine did differently is in it" if recorded else "interleaved"
    known = [one.value for one in ratios.values() if not one.why]
    return replace(base, outcome=outcome, detail=f"{said} ({how})", measured=max(known, default=None))


def _latency(baseline: Arm, candidate: Arm, q: float, *, paired: bool) -> Ratio:
    fewest = min(baseline.reads, candidate.reads)
    if fewest < NEEDED[q]:
        return Ratio(1.0, 0.0, float("inf"), f"needs {NEEDED[q]:,} reads an arm, there are {fewest:,}")
    arms = [[_counts(one.latency) for one in each.blocks if one.latency] for each in (baseline, candidate)]
    return quantile_ratio_of_counts(arms[0], arms[1], q, paired=paired)


def _counts(text: str) -> dict[float, int]:
    filled = Histogram()
    filled.add_text(text)
    return filled.counts()


def _said(one: Ratio) -> str:
    return one.why or f"x {one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _unlike(baseline: Arm, candidate: Arm) -> str:
    """Why the two cannot be compared; '' when they can."""
    for name, one in ((BASELINE, baseline), (CANDIDATE, candidate)):
        if len(one.blocks) < FEWEST:
            return f"needs {FEWEST} stretches of time of the {name}, there are {len(one.blocks)}"
    asked, other = baseline.asked, candidate.asked
    n, m = asked.total(), other.total()
    rate, its = n / baseline.seconds, m / candidate.seconds
    if not (1 - RATE) * rate <= its <= (1 + RATE) * rate:
        return f"not the same rate: the baseline was asked {rate:.1f} times a second, the candidate {its:.1f}"
    for sample in sorted(asked | other):
        if abs(asked[sample] / n - other[sample] / m) > SHARE:
            return (
                f"not the same mix: {sample} was {asked[sample] / n:.0%} of the baseline's requests, {other[sample] / m:.0%} here"
            )
    return ""


def recorded(histories: Iterable[History], *, before: float) -> History:
    """Another run's minutes as one history that is kept with this run's own, so that a recheck needs nothing else.

    `before` is when this run begins: what it is compared with comes first. Its intervals are the blocks of the arm; those of a release
    that was itself a baseline are left out.
    """
    filled = Arm()
    for history in histories:
        filled.add(one for one in history.intervals if one.release != BASELINE)
    return History(
        experiment=FAMILY,
        started=before - 1.0,
        finished=before - 1.0,
        facts={"family": FAMILY, "gate": GATE, "title": "a recorded run to compare with"},
        intervals=tuple(part for one in filled.blocks for part in _parts(one)),
    )


def _parts(block: Block) -> Iterable[Interval]:
    """A block as intervals again: one a sample; the first read has the latency of all reads, and the first sample all good answers."""
    latency, good = block.latency, block.good
    for sample, count in sorted(block.asked.items(), key=lambda item: not item[0].startswith("read")):
        kind = Kind.WRITE if sample.startswith("write") else Kind.READ
        yield Interval(
            started=block.started,
            seconds=block.seconds,
            sample=sample,
            kind=kind,
            release=BASELINE,
            planned=count,
            sent=count,
            good=good,
            latency=latency,
        )
        latency, good = "", 0
