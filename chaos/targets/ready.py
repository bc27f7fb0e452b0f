"""Is it ready? One question over HTTP, asked until the answer is yes."""

from __future__ import annotations

import http.client
import ssl
import uuid
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from chaos.config import expand, names_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.config import Target

REFUSED = "the connection was refused"


def question(target: Target, values: Mapping[str, str], base_url: str) -> tuple[str, dict[str, str]]:
    """URL and headers of the request that says whether the target is ready: `ready`, else `live`.

    On the target's own address the Host is the first allowed one; a whole URL carries its own. Headers that wait for something a
    prepare request has yet to save are left out: those are sent when the target is ready.
    """
    path = expand(target.ready or target.live or "/", values)
    own = not path.startswith(("http://", "https://"))
    unknown = {name for request in target.prepare for name in request.save} - values.keys()
    filled = expand(dict(target.headers), {**values, "unique": uuid.uuid4().hex})
    headers = {name: value for name, value in filled.items() if not names_in(value) & unknown}
    if own and target.host:
        headers["Host"] = target.host
    return (base_url + path if own else path), headers


def ask(url: str, headers: Mapping[str, str], *, timeout: float) -> str:
    """'' when the answer is 2xx, else what happened, to be read after 'the last answer: '. Obeys no proxy variable."""
    parts = urlsplit(url)
    where = parts.hostname or "", parts.port
    if parts.scheme == "https":
        # Whose certificate this is, is not what is judged here: the suite is pointed at the target by its owner.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001  (the stable spelling for http.client)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(*where, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(*where, timeout=timeout)
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), headers=dict(headers))
        answer = connection.getresponse()
        if 200 <= answer.status < 300:
            return ""
        text = " ".join(answer.read(200).decode("utf-8", "replace").split())
        return f"{answer.status} {answer.reason}" + (f", {text[:120]}" if text else "")
    except ConnectionRefusedError:
        return REFUSED
    except TimeoutError:
        return f"none within {timeout:.1f} s"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"none: {error or type(error).__name__}"
    finally:
        connection.close()
