"""Secrets out of whatever people get to see: one function, applied to every text that leaves the program.

It knows shapes (a password in a URL, an Authorization header, a cookie, a private key, `token=...`), and it is told values. It
errs on the side of hiding: a word too many starred out costs a look at the store, a password in a report costs a rotation.
Applying it twice gives the same as applying it once. It also takes out control characters, so that no log line of a target can
move a terminal's cursor or break an XML file.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HIDDEN = "***"

_NAMES = (
    r"(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key(?:[_-]id)?|private[_-]?key|"
    r"client[_-]?secret|credentials?|signature|session(?:[_-]?id)?|jwt|otp)"
)
_QUOTE = r"(\\?[\"'])"
_HEADERS = r"(?:proxy-)?authorization|(?:set-)?cookie|x-api-key|api-key|x-auth-token|x-csrf-token|x-amz-security-token"

_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, flags | re.IGNORECASE), replacement)
    for pattern, flags, replacement in (
        # a private key, whole or cut off (its line ends may be written as backslash n)
        (r"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|\Z)", re.DOTALL, HIDDEN),
        # https://user:password@host
        (r"(\b[a-z][a-z0-9+.-]{0,20}://[^\s/?#:@\"'<>]*):[^\s/?#\"'<>]*@", 0, rf"\1:{HIDDEN}@"),
        # "password": "..." in JSON, in a Python or JavaScript literal, and as a pair; a quote may be escaped
        (
            rf"({_QUOTE}(?:[\w-]{{0,40}}{_NAMES}|{_HEADERS})\2\s*[:,]\s*[bu]?){_QUOTE}(?:(?!\3).)*(?:\3|$)",
            re.MULTILINE,
            rf"\1\3{HIDDEN}\3",
        ),
        # Authorization: ... to the end of the line (of the string, when the line is inside one)
        (rf"\b({_HEADERS})(\s*[:=]\s*)(?!\s*{re.escape(HIDDEN)})[^\s\"'][^\r\n\"']*", 0, rf"\1\2{HIDDEN}"),
        # password = 'two words' and token=abc in connection strings, forms, queries and environments
        (rf"({_NAMES})(\s*=\s*)(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|(?!\s)[^\s&;,'\"<>)\]}}]+)", 0, rf"\1\2{HIDDEN}"),
        (r"\b(password\s+)'(?:[^']|'')*'", 0, rf"\1'{HIDDEN}'"),  # ALTER ROLE app PASSWORD '...'
        (r"\b(password:[ \t]*)(?!\*\*\*)\S+", 0, rf"\1{HIDDEN}"),
        (r"\bSCRAM-SHA-(1|256)\$\d+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+", 0, rf"SCRAM-SHA-\1${HIDDEN}"),
        (r"(?<![\w-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*", 0, HIDDEN),  # a JSON web token
        (
            r"\b(Bearer|Basic|Digest|Negotiate)(\s+)(?=[^\s\"',]*(?:[\d=._/+]|(?-i:[a-z][A-Z]))|[^\s\"',]{16})[A-Za-z0-9._~+/=-]{6,}",
            0,
            rf"\1\2{HIDDEN}",
        ),
        # the providers' own forms: AWS, GitHub, Slack, Stripe, Google, GitLab, npm, PyPI, SendGrid; an Azure SAS, a Slack web-hook
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}|\bxox[abprs]-[A-Za-z0-9-]{10,}", 0, HIDDEN),
        (r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|\bAIza[\w-]{35}|\bglpat-[\w-]{20,}|\bnpm_[A-Za-z0-9]{36}", 0, HIDDEN),
        (r"\bpypi-[\w-]{16,}|\bSG\.[\w-]{16,}\.[\w-]{16,}|\bgithub_pat_\w{20,}", 0, HIDDEN),
        (r"([?&]sig=)[^\s&\"'<>]+", 0, rf"\1{HIDDEN}"),
        (r"(\bhooks\.slack\.com/(?:services|workflows)/)[\w/-]+", 0, rf"\1{HIDDEN}"),
    )
)
# Without any of these (in lower case) no rule above can find anything: most texts are passed over by looking for words.
_HINTS = (
    *("passw", "passphrase", "pwd", "secret", "token", "api_key", "api-key", "apikey", "access_key", "access-key", "accesskey"),
    *("private", "credential", "signature", "session", "jwt", "otp", "authorization", "cookie", "x-auth-", "://", "scram-sha"),
    *("eyj", "bearer", "basic", "digest", "negotiate", "akia", "asia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "xox", "k_live_"),
    *("k_test_", "aiza", "glpat-", "npm_", "pypi-", "sg.", "github_pat_", "sig=", "hooks.slack"),
)
# C0 but tab and line feed, DEL, C1, what XML 1.0 does not allow, and the marks that reorder text (Unicode bidi overrides)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without control characters and without secrets: those of a known shape, and each of `secrets` (>= 4 characters).

    A given secret is also found percent-encoded, escaped as in JSON, in HTML, and in base64.
    """
    return hide(printable(text), secrets)


def hide(text: str, secrets: Iterable[str] = ()) -> str:
    """The same, with every other character as it was: for what is kept to be judged again."""
    for secret in sorted({item for item in secrets if len(item) >= 4}, key=len, reverse=True):
        for shape in _shapes(secret):
            if shape in text:
                text = text.replace(shape, HIDDEN)
    folded = text.lower()
    if any(one in folded for one in _HINTS):
        for pattern, replacement in _RULES:
            text = pattern.sub(replacement, text)
    return text


def in_json(value: Any, clean: Callable[[str], str]) -> Any:
    """Each text in a JSON value cleaned, by itself, so that what is taken out can never be JSON's own quotes and braces. Any: JSON."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list | tuple):
        return [in_json(item, clean) for item in value]
    return {key: in_json(item, clean) for key, item in value.items()} if isinstance(value, dict) else value


def printable(text: str) -> str:
    """`text` without terminal escape sequences and control characters (a carriage return before a line feed is dropped)."""
    text = _ESCAPE.sub("", text.replace("\r\n", "\n"))
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _shapes(secret: str) -> list[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    markup = secret.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shapes = [secret, quote(raw, safe=""), quote_plus(raw), json.dumps(secret)[1:-1], markup, base64.b64encode(raw).decode()]
    return sorted(set(shapes), key=len, reverse=True)
