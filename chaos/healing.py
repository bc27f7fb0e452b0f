"""What undoes a fault of a ledger (chaos.ledger), and who has done it. Standard library only, and nothing of ours.

The runner, `chaos-gate heal` and the watchdog, which may import nothing and loads this file by its path, all use the very same.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from contextlib import suppress
from urllib.parse import quote, urlsplit

CALL = 2.0  # s for one request to Toxiproxy: a toxic that is stuck in its removal blocks the API
HEALING = 10.0  # s for which a proxy that cannot be healed is tried again


def call(method: str, url: str, body: object = None) -> tuple[int, object]:
    """One request without proxies or redirects: status and JSON (None: no JSON). Raises OSError: no answer in time."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    text = None if body is None else json.dumps(body).encode()
    headers = {"User-Agent": "chaos-gate", **({"Content-Type": "application/json"} if text else {})}
    connection = kind(parts.hostname or "", parts.port, timeout=CALL)
    try:
        connection.request(method, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body=text, headers=headers)
        answer = connection.getresponse()
        data = answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP: {error!r}") from error
    finally:
        connection.close()
    try:
        return answer.status, json.loads(data)
    except ValueError:
        return answer.status, None


class _Proxy:
    """One proxy of a Toxiproxy server, by its control API (https://github.com/Shopify/toxiproxy, 'HTTP API')."""

    def __init__(self, url: str, name: str) -> None:
        self.url = f"{url.rstrip('/')}/proxies/{quote(name, safe='')}"

    def state(self) -> tuple[set[str], bool]:
        """The names of its toxics, and whether it is enabled. Raises LookupError: no such proxy; OSError: no answer."""
        status, data = call("GET", self.url)
        if status != 200 or not isinstance(data, dict):
            raise LookupError(f"Toxiproxy answers {status}: {self.url}")
        return {toxic["name"] for toxic in data["toxics"]}, data["enabled"]

    def enable(self, enabled: bool) -> None:
        """POST, not PATCH: every version has it."""
        call("POST", self.url, {"enabled": enabled})

    def mend(self, toxics: set[str], *, enabled: bool, cut: bool) -> bool:
        """One try. True when it reads back as wanted."""
        held, _ = self.state()
        if cut and toxics & held:
            self.enable(False)
        for name in sorted(toxics & held):  # one by one: /reset stops at its first error, and removes what others put there
            call("DELETE", f"{self.url}/toxics/{name}")
        if self.state()[1] is not enabled:
            self.enable(enabled)
        held, state = self.state()
        return not toxics & held and state is enabled


def restore(
    url: str, proxy: str, *, toxics: set[str], enabled: bool, ours: bool, cut: bool = True, seconds: float = HEALING
) -> str:
    """Takes these toxics off the proxy and puts it back to `enabled`, read back; toxics of others stay.

    '' when it is done, else why not. A Toxiproxy that is `ours` and does not listen any more is gone, and its faults with it.
    `cut`: close the proxy's connections first. Toxiproxy 2.12 waits for ever, holding its lock, when it takes a toxic from a
    connection whose client reads nothing (ToxicLink.RemoveToxic): whoever only has to leave a clean proxy does not risk that.
    """
    deadline, why = time.monotonic() + seconds, ""
    while True:
        try:
            if _Proxy(url, proxy).mend(toxics, enabled=enabled, cut=cut):
                return ""
            why = "it does not read back as it was before"
        except ConnectionRefusedError as error:
            if ours:
                return ""
            why = str(error)
        except LookupError as error:
            why = str(error.args[0])
            if ours:
                return ""
        except TimeoutError:
            why = f"no answer within {CALL:g} s; when it stays so, Toxiproxy hangs in removing a toxic, and has to be restarted"
        except OSError as error:
            why = str(error)
        if time.monotonic() > deadline:
            return why
        time.sleep(0.1)


def entries(data: bytes) -> list[dict[str, object]]:
    """A ledger's lines. A torn one (whoever wrote it died meanwhile) tells of a fault that was not injected yet: it is left out."""
    found = []
    for line in data.splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict) and "id" in one]


def unhealed(data: bytes, of: str = "") -> dict[str, dict[str, object]]:
    """The faults of a ledger that were not healed, by id, in the order of their injection; of the worker `of` alone, if given."""
    found: dict[str, dict[str, object]] = {}
    for entry in entries(data):
        name = str(entry["id"])
        if entry.get("entry") == "inject" and name.startswith(f"{of}." if of else ""):
            found[name] = entry
        elif entry.get("entry") == "healed":
            found.pop(name, None)
    return found


def undo(entry: dict[str, object], *, seconds: float = HEALING) -> str:
    """Heals one fault of a ledger by what it says itself; '' or why not. What ends with the run needs nothing but its end."""
    actions: list[dict[str, object]] = entry["undo"]  # type: ignore[assignment]  # JSON, as chaos.ledger wrote it
    whys = [
        restore(
            str(one["url"]),
            str(one["proxy"]),
            toxics=set(one["toxics"]),  # type: ignore[call-overload]
            enabled=bool(one["enabled"]),
            ours=bool(one["ours"]),
            seconds=seconds,
        )
        for one in reversed(actions)
        if one["do"] == "restore"
    ]
    return "; ".join(filter(None, whys))


def note(descriptor: int, entry: dict[str, object]) -> None:
    """Appends one line to a ledger, whole and on the disk. Several processes may do so at a time (O_APPEND)."""
    os.write(descriptor, json.dumps(entry).encode() + b"\n")
    os.fsync(descriptor)


def outcome(entry: dict[str, object], why: str, by: str) -> dict[str, object]:
    """The line that says that a fault was healed, or why it was not."""
    ended = {"id": entry["id"], "at": time.time(), "by": by}
    return {"entry": "failed", **ended, "why": why} if why else {"entry": "healed", **ended}
