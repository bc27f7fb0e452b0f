"""Everything that can go wrong around a run, as one tree.

    ChaosError                    what happened, where, and the remedy
    +-- UsageError           (2)  the caller asked for something that does not exist or does not fit
    |   +-- ConfigError           chaos.toml, gates.toml or zoo.toml: file and line
    +-- Aborted              (3)  an abort condition of chaos.toml held: stopped and healed, on purpose
    +-- EnvironmentFault     (4)  the machine or a part of the environment, never the target's resilience
        +-- PartMissing           a server, wheel or tool that could not be had
        +-- PartFailed            a part that did not start, or died when nobody asked it to
        +-- TargetFailed          the target did not start, did not get ready, or died with no fault injected
        +-- EvidenceUnwritable    the evidence directory, or the disk it is on
        +-- CleanupFailed         a fault that could not be healed, a process that could not be stopped

A failed *gate* is never an exception: it is data (`chaos.model.Finding`). Each error prints as at most three lines: what was
wrong, the last words of the part concerned (when it had any), and what to do. The number in brackets is the process's exit code.
"""

from __future__ import annotations

from typing import ClassVar


class ChaosError(Exception):
    """Base of the tree. `what` is one sentence, `remedy` one imperative sentence, `where` is 'file:line' or a part's name.

    `tail` holds the last lines of the log of the part concerned, oldest first; it is shown indented.
    """

    exit_code: ClassVar[int] = 4

    def __init__(self, what: str, *, remedy: str, where: str = "", tail: tuple[str, ...] = ()) -> None:
        self.what = what
        self.remedy = remedy
        self.where = where
        self.tail = tail
        super().__init__(self.render())

    def render(self) -> str:
        """The message people read: 'where: what', the log's tail, 'remedy'."""
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        lines += [f"    | {line}" for line in self.tail]
        lines.append(f"  -> {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.remedy, self.where, self.tail)


def _rebuild(kind: type[ChaosError], what: str, remedy: str, where: str, tail: tuple[str, ...]) -> ChaosError:
    return kind(what, remedy=remedy, where=where, tail=tail)


class UsageError(ChaosError):
    """The command line, or a name in it, is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file is wrong; `where` is 'path:line'."""


class Aborted(ChaosError):  # noqa: N818  (nothing has gone wrong with the run)
    """An abort condition held: everything was stopped and healed, and nothing more is known. `where` is '[environment] abort'."""

    exit_code = 3


class EnvironmentFault(ChaosError):  # noqa: N818  (EnvironmentError is Python's own OSError)
    """Something around the target is broken that no fault of ours broke."""

    exit_code = 4


class PartMissing(EnvironmentFault):
    """A server, wheel or tool that is needed could not be had."""


class PartFailed(EnvironmentFault):
    """A part of the environment did not start in time, or died when nobody asked it to."""


class TargetFailed(EnvironmentFault):
    """The target did not start, did not get ready in time, or died while no fault was injected."""


class EvidenceUnwritable(EnvironmentFault):
    """The evidence directory cannot be written, or the disk is full."""


class CleanupFailed(EnvironmentFault):
    """A fault could not be healed or a process could not be stopped: the environment is dirty, and says so."""
