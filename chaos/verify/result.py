"""What a verification came to: one step a line, and each problem with its place."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 12  # problems that are told of one step


@dataclass(frozen=True, slots=True)
class Problem:
    """What does not hold, and where: file, table, row and field, as far as that can be told."""

    where: str
    what: str


@dataclass(slots=True)
class Step:
    """One thing that was looked at. `said` is what was found when it holds."""

    name: str
    said: str = ""
    problems: list[Problem] = field(default_factory=list)

    def wrong(self, where: str, what: str) -> None:
        """Something does not hold."""
        self.problems.append(Problem(where, what))

    def expect(self, where: str, found: object, wanted: object) -> None:
        """The same, when two values differ; numbers may differ by rounding."""
        if not same(found, wanted):
            self.wrong(where, f"is {_short(found)}, recomputed {_short(wanted)}")


@dataclass(slots=True)
class Report:
    """Of one bundle. `gates`: gate -> (findings counted again from raw rows, findings); `notes` are no problems."""

    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    gates: dict[str, tuple[int, int]] = field(default_factory=dict)
    origin: str = ""
    verdict: str = ""

    @property
    def problems(self) -> list[Problem]:
        """Of all steps, in order."""
        return [problem for step in self.steps for problem in step.problems]

    def step(self, name: str) -> Step:
        """Begin one."""
        self.steps.append(Step(name))
        return self.steps[-1]

    def as_data(self) -> dict[str, object]:
        """For --json."""
        return {
            "schema_version": 1,
            "verifies": not self.problems,
            "origin": self.origin,
            "verdict": self.verdict,
            "steps": [{"step": one.name, "holds": not one.problems, "said": one.said} for one in self.steps],
            "problems": [
                {"step": step.name, "where": one.where, "what": one.what} for step in self.steps for one in step.problems
            ],
            "gates": {name: {"from_rows": raw, "findings": of} for name, (raw, of) in self.gates.items()},
            "notes": self.notes,
        }

    def as_text(self) -> str:
        """For people: a line a step, the problems below it, then what is said beside."""
        lines = []
        for step in self.steps:
            lines.append(
                f"{'FAILS' if step.problems else 'holds'}  {step.name:<12} {step.said if not step.problems else ''}".rstrip()
            )
            lines += [f"         {one.where}: {one.what}" for one in step.problems[:SHOWN]]
            if len(step.problems) > SHOWN:
                lines.append(f"         and {len(step.problems) - SHOWN:,} more")
        lines += [f"note   {one}" for one in self.notes]
        last = "does not verify" if self.problems else "verifies"
        return "\n".join([*lines, f"{last}: {self.origin or 'origin not checked'}"]) + "\n"


def same(found: object, wanted: object) -> bool:
    """Equal; two numbers are when they differ by no more than what rounding makes of them."""
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, int | float) and isinstance(wanted, int | float):
        return found == wanted or abs(found - wanted) <= 1e-9 * max(abs(found), abs(wanted), 1e-3)
    if isinstance(found, list | tuple) and isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[key], wanted[key]) for key in found)
    return found == wanted


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"
