"""What an error answer must never tell its reader: how the service is built, where its database is, what the driver said.

Each pattern is the form that a program gives such a thing, not a word that also stands in ordinary text: 'select one from the
list' is no SQL, 'File a report, line 3' no stack trace (CWE-209; OWASP WSTG-ERRH-01, WSTG-ERRH-02).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_STACKS = {
    "a Python stack trace": r"Traceback \(most recent call last\)|File \"[^\"\n]+\.py\", line \d+",
    "a Java stack trace": r"\bat [\w$.]+\.[\w$<>]+\((?:\w+\.(?:java|kt|scala):\d+|Native Method|Unknown Source)\)",
    "a Java exception": r"\b(?:java|javax|jakarta|org|com|net|io|kotlin|scala)\.(?:\w+\.)+[A-Z]\w*(?:Exception|Error)\b",
    "a Go stack trace": r"\bgoroutine \d+ \[\w|\b\w+\.go:\d+\b|panic: runtime error",
    "a Node stack trace": r"\bat (?:[^\n(]{1,80} \()?(?:[^\s()]+\.[cm]?[jt]sx?|node:[\w/]+):\d+:\d+",
    "a Rust panic": r"thread '[^']*' (?:\(\d+\) )?panicked at|\b\w+\.rs:\d+:\d+|RUST_BACKTRACE=",
    "a PHP error": r"\w+\.php(?::\d+|\(\d+\)| on line (?:<b>)?\d+)|PHP (?:Fatal|Parse) error:|Fatal error</b>: ",
    "a Ruby stack trace": r"\w+\.rb:\d+:in [`']",
    "a .NET stack trace": r"\bat [\w.<>`\[\]]+\([^)\n]*\) in \S[^\n]*:line \d+",
    "a .NET exception": r"\bSystem(?:\.\w+)+Exception\b|\bNpgsql\.\w*Exception\b",
}
_DATABASE = {
    "SQL": (
        r"\bSELECT\s[^<>{}]{1,400}?\sFROM\s+[\w\".]+|\bINSERT\s+INTO\s+[\w\".]+\s*[(\s]|\bUPDATE\s+[\w\".]+\s+SET\s"
        r"|\bDELETE\s+FROM\s+[\w\".]+|\[SQL: "
    ),
    "SQL in lower case": (
        r"\bselect\s[^<>{}]{1,400}?\sfrom\s+[\w\".]+(?:\s+(?:as\s+)?\w+)?\s+"
        r"(?:where\s+[\w\".]+\s*(?:=|<|>|in\s*\(|like\s)|limit\s+[\d$:?]|order by\s)"
        r"|\binsert into\s+[\w\".]+\s*\([^)]*\)\s*values|\bupdate\s+[\w\".]+\s+set\s+[\w\".]+\s*="
    ),
    "a database address": r"\bpostgres(?:ql)?(?:\+\w+)?://[^\s/]|\bjdbc:postgresql:|\bport 5432\b|[\w\])]:5432\b",
    "connection parameters": (
        r"\b(?:host|hostaddr|user|dbname)=[^\s;,]+[ ;,]+(?:\w+=[^\s;,]*[ ;,]+)*"
        r"(?:dbname|database|port|user|password|sslmode)=[^\s;,]"
    ),
    "PostgreSQL's words": (
        r"\bFATAL: +\w|\bSQLSTATE\b[\s\[:(=]*[0-9A-Z]{5}\b|no pg_hba\.conf entry|password authentication failed for user"
        r"|violates (?:unique|foreign key|check|exclusion) constraint \"|null value in column \"|\brelation \"[^\"]+\" does not"
        r"|column \"[^\"]+\" of relation \"|\bLINE \d+: |syntax error at or near \"|invalid input syntax for (?:type )?\w+: ?\""
        r"|canceling statement due to|terminating connection due to|remaining connection slots are reserved"
        r"|sorry, too many clients already"
        r"|the database system is (?:starting up|shutting down|in recovery mode|not yet accepting)"
        r"|current transaction is aborted, commands ignored|could not serialize access due to"
    ),
    "a driver's words": (
        r"\bpsycopg(?:2|_pool)?\.\w|\basyncpg\.\w|\bpg8000\.\w|\bsqlalchemy\.\w+|\(Background on this error at: "
        r"|\b(?:pq|pgx): |\bpgconn\b"
        r"|\bPSQLException\b|\bPG::\w+|connection to server at \"|server closed the connection unexpectedly|\blibpq\b"
        r"|could not connect to server:|could not (?:receive data from|send data to) server|could not translate host name"
        r"|\bSSL SYSCALL error|\bSSL error: |certificate verify failed|CERTIFICATE_VERIFY_FAILED|\bx509: "
        r"|unable to verify the first certificate|self[- ]signed certificate in certificate chain|root certificate file"
        r"|\bdial tcp\b|\bE(?:CONNREFUSED|CONNRESET|TIMEDOUT|PIPE|HOSTUNREACH)\b|\[Errno \d+\]|\bos error \d+\b"
        r"|\bQueuePool limit\b|\bHikariPool-\d|couldn't get a connection after [\d.]+ sec|timeout exceeded when trying to connect"
        r"|Connection terminated (?:unexpectedly|due to connection timeout)"
    ),
    "the path of a certificate or key": (
        r"(?<![\w/:.-])(?:/|[A-Z]:\\)(?:[\w.@~-]+[/\\])*[\w.@~-]+\.(?:pem|crt|key|p12|pfx|jks)\b"
    ),
}
# Names and addresses of what is inside: only where they cannot be part of ordinary text, nor the client's own address told back.
_INSIDE = {
    "the address of something inside": (
        r"\b(?:10(?:\.\d{1,3}){3}|172\.(?:1[6-9]|2\d|3[01])(?:\.\d{1,3}){2}|192\.168(?:\.\d{1,3}){2}):\d{2,5}\b"
        r"|\b(?:server|upstream|backend|node|database|db|connect(?:ed|ing|ion)?|dial(?:ing)?)(?: (?:to|at|from|on|host))*"
        r"\W{1,3}(?:10(?:\.\d{1,3}){3}|172\.(?:1[6-9]|2\d|3[01])(?:\.\d{1,3}){2}|192\.168(?:\.\d{1,3}){2})\b"
    ),
    "the name of a host inside": (
        r"\b[\w-]+(?:\.[\w-]+)*\.(?:svc\.cluster\.local|cluster\.local|(?:ec2|compute|docker)\.internal|service\.consul"
        r"|rds\.amazonaws\.com|postgres\.database\.azure\.com)\b|\bip(?:-\d{1,3}){4}\b"
    ),
}
_FILES = {
    "the path of a file of the service": (
        r"(?<![\w/:.-])/(?:usr|opt|home|root|srv|var|etc)/(?:[\w.@~+-]+/)*[\w.@~+-]+"
        r"\.(?:py|rb|[cm]?js|tsx?|java|kt|go|jar|war|so|conf|cnf|ini|env|log|sock|cs|rs|exs?)\b"
        r"|(?<![\w/:.-])/(?:app|code|workspace|build|tmp)/(?:[\w.@~+-]+/)*[\w.@~+-]+\.(?:py|rb|java|kt|go|jar|war|so|cs|rs|exs?|sock)\b"
        r"|(?<![\w/:.-])/(?:usr/(?:local/)?(?:lib|share|bin)|var/(?:lib|run|log|www))/[\w.@~+-]+"
        r"|\b[A-Z]:\\{1,2}(?:[\w .-]+\\{1,2})+[\w .-]+"
    ),
}
OPENS, CLOSES = "\N{LEFT WHITE SQUARE BRACKET}", "\N{RIGHT WHITE SQUARE BRACKET}"  # around what a recorder put in a value's place
_MARKED = re.compile(f"{OPENS}([^{OPENS}{CLOSES}]{{1,80}}){CLOSES}")
PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern)) for name, pattern in {**_STACKS, **_DATABASE, **_FILES}.items()
)
INSIDE = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in _INSIDE.items())


def leak(text: str, private: Iterable[str] = (), *, hosts: bool = True) -> str:
    """What of this kind `text` holds ('SQL: SELECT id FROM items'), '' when nothing; `private` are words it may not hold at all.

    A value that only the run knows (the database's password, an API key) is no longer in a recorded text: what it was is, in white
    brackets (chaos.experiment.private). JSON's escapes are undone first, so that a trace in a string is found as well as one in a
    page. `hosts`: whether names of hosts are looked for; not where a request was about nothing else.
    """
    if marked := _MARKED.search(text):
        return marked[1]
    plain = text.replace("\\n", "\n").replace('\\"', '"').replace("\\/", "/").replace("\\u0027", "'").replace("&quot;", '"')
    for name, pattern in (*PATTERNS, *(INSIDE if hosts else ())):
        if found := pattern.search(plain):
            return f"{name}: {' '.join(found.group().split())[:120]}"
    secret = next((one for one in private if one and one in plain), "")
    return "a private value of the configuration" if secret else ""
