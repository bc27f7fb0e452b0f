"""Abort conditions: what stops a run and heals it at once, because somebody or something says that it hurts.

    [environment]
    abort = { error_rate = 0.9, latency = 5, over = 10, file = "/run/stop-chaos", url = "https://ops.example.test/stop" }

`error_rate` (a share) and the median `latency` (s) are those of the suite's own reads and writes in the last `over` seconds, from
ten of them on: during a fault that takes the database away every one of them may fail, so a limit that is meant to end a run
early lies above what the outage itself does to the target. A file that exists stops the run; so does a URL that answers 2xx, or
says 'stop' in the first line of any other answer. A URL that does not answer at all stops nothing: it is asked again.
"""

from __future__ import annotations

import signal
import statistics
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from chaos.model import Kind, now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from chaos.model import Operation

EVERY = 0.2  # s between two looks
ASKING = 1.0  # s between two questions to the URL: it is somebody's service
FEWEST = 10  # requests below which a rate says nothing
WORK = (Kind.READ, Kind.WRITE)


class Conditions(Protocol):
    """`[environment] abort` of chaos.toml; None: not asked for."""

    @property
    def error_rate(self) -> float | None:
        """A share of the requests, 0 to 1."""

    @property
    def latency(self) -> float | None:
        """Seconds, of the median request."""

    @property
    def over(self) -> float:
        """Seconds over which both are taken."""

    @property
    def file(self) -> Path | None:
        """Stops when it exists."""

    @property
    def url(self) -> str | None:
        """Stops when it says so."""


def judge(conditions: Conditions, operations: Iterable[Operation]) -> str:
    """Why the traffic of the last seconds says stop; '' when it does not. Pure."""
    work = [one for one in operations if one.kind in WORK]
    if len(work) < FEWEST:
        return ""
    failed = sum(not one.ok for one in work)
    if conditions.error_rate is not None and failed / len(work) > conditions.error_rate:
        return (
            f"{failed} of {len(work)} requests of the last {conditions.over:g} s failed (error_rate = {conditions.error_rate:g})"
        )
    middle = statistics.median(one.seconds for one in work)
    if conditions.latency is not None and middle > conditions.latency:
        return f"the median request of the last {conditions.over:g} s took {middle:.2f} s (latency = {conditions.latency:g})"
    return ""


class Watch:
    """Looks at the conditions from a thread of its own; `reason` is '' until one of them holds, and then stays.

    SIGUSR1 is its own: it wakes the main thread from whatever that one waits for. Start it from there.
    """

    def __init__(self, conditions: Conditions, since: Callable[[float], Iterable[Operation]]) -> None:
        self.reason = ""
        self._conditions = conditions
        self._since = since
        self._ended = threading.Event()
        self._stop: Callable[[], None] | None = None
        self._wakes = False
        self._threads = [threading.Thread(target=self._look, name="abort", daemon=True)]
        if conditions.url is not None:
            self._threads.append(threading.Thread(target=self._ask, name="abort-url", daemon=True))

    def start(self) -> None:
        """Begin to look."""
        with suppress(ValueError):  # not the main thread: whoever asks for `reason` has to do
            signal.signal(signal.SIGUSR1, self._woken)
            self._wakes = True
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Idempotent."""
        self._ended.set()

    @contextmanager
    def interrupting(self, stop: Callable[[], None]) -> Iterator[None]:
        """Within, `stop` (which raises) is called in the main thread as soon as there is a reason; once, and never after the end."""
        self._stop = stop
        try:
            self._woken()
            yield
        finally:
            self._stop = None

    def _woken(self, *_: object) -> None:
        if self.reason and self._stop is not None:
            stop, self._stop = self._stop, None
            stop()

    def _tell(self, reason: str) -> None:
        if reason and not self.reason:
            self.reason = reason
            if self._wakes and not self._ended.is_set():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _look(self) -> None:
        file = self._conditions.file
        while not self._ended.is_set() and not self.reason:
            if file is not None and file.exists():
                self._tell(f"{file} exists")
            else:
                self._tell(judge(self._conditions, self._since(now() - self._conditions.over)))
            self._ended.wait(EVERY)

    def _ask(self) -> None:
        while not self._ended.is_set() and not self.reason:
            with suppress(OSError, ValueError):
                self._tell(told(str(self._conditions.url)))
            self._ended.wait(ASKING)


def told(url: str) -> str:
    """Why the URL says stop; '' when it does not. Raises OSError: no answer. Proxy variables are obeyed, redirects followed."""
    request = urllib.request.Request(url, headers={"User-Agent": "chaos-gate"})
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            return f"{url} answers {answer.status}"
    except urllib.error.HTTPError as error:
        with error:
            first = error.read(200).decode("utf-8", "replace").partition("\n")[0]
        return f"{url} says {first.strip()!r}" if first.strip().lower().startswith("stop") else ""
