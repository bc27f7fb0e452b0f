"""Errors against the schema: what is right, what is wrong, what must not be told, and what is innocent."""

from __future__ import annotations

import json

import pytest

from chaos.checks.errors import judge, problem_with
from chaos.checks.leaks import leak
from chaos.model import History, Kind, Layer, Operation, Outcome

OWN = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": ["code"], "properties": {"code": {"type": "string"}}}},
}


def operation(body: object, *, status: int = 400, media: str = "application/problem+json", method: str = "GET", path: str = "/items/1",
              layer: Layer = Layer.APPLICATION, kind: Kind = Kind.INVALID) -> Operation:  # fmt: skip
    text = body if isinstance(body, str) else json.dumps(body)
    return Operation(kind=kind, method=method, path=path, sample="invalid[0]", started=0.0, finished=0.1, status=status,
                     media_type=media, body=text, layer=layer)  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        {"type": "about:blank", "title": "Bad request", "status": 400},
        {"status": 400},
        {"detail": "the id must be a number", "errors": [{"field": "id"}]},
        {"type": "https://example.test/errors/not-found#a?b=%20", "instance": "/items/1?x=[1]", "title": ""},
        {"title": "Bad request", "status": 400.0, "code": "E1", "request_id": "7"},
        {"title": "Wählen Sie bitte etwas: SELECT one from the list"},
    ],
)
def test_right_problems(body: object) -> None:
    assert problem_with(operation(body), "problem+json") == ""
    assert problem_with(operation(body, media="Application/Problem+JSON; charset=utf-8"), "problem+json") == ""


@pytest.mark.parametrize(
    ("body", "media", "said"),
    [
        ({"title": "x"}, "application/json", "media type application/json"),
        ({"title": "x"}, "", "media type (none)"),
        ("<h1>no</h1>", "text/html; charset=utf-8", "media type text/html"),
        ("", "application/problem+json", "an empty body"),
        ("nope", "application/problem+json", "no JSON"),
        ('{"status": NaN}', "application/problem+json", "no JSON"),
        ("[" * 3000, "application/problem+json", "JSON"),
        ([], "application/problem+json", "a JSON list, not an object"),
        ("null", "application/problem+json", "a JSON null"),
        ({"code": 3}, "application/problem+json", "none of `type`"),
        ({"title": 3}, "application/problem+json", "`title` is a number"),
        ({"title": "x", "instance": None}, "application/problem+json", "`instance` is a null"),
        ({"title": "x", "type": "not a reference"}, "application/problem+json", "no URI reference"),
        ({"title": "x", "type": "/a%zz"}, "application/problem+json", "no URI reference"),
        ({"status": 500}, "application/problem+json", "`status` says 500, the answer is 400"),
        ({"status": "400"}, "application/problem+json", "`status` is a string"),
        ({"status": True}, "application/problem+json", "`status` is a boolean"),
    ],
)
def test_wrong_problems(body: object, media: str, said: str) -> None:
    assert said in problem_with(operation(body, media=media), "problem+json")


def test_answers_without_a_body() -> None:
    assert problem_with(operation("", method="HEAD", media=""), "problem+json") == ""
    assert problem_with(operation("", method="HEAD"), "problem+json") == ""
    assert "text/html" in problem_with(operation("", method="HEAD", media="text/html"), "problem+json")
    assert problem_with(operation("", status=304, media=""), "problem+json") == ""


def test_a_body_that_the_recorder_cut_is_judged_by_its_beginning() -> None:
    cut = json.dumps({"title": "x", "detail": "y" * 5000})[:4096]
    assert problem_with(operation(cut), "problem+json") == ""
    assert "no JSON" in problem_with(operation(cut[:4000]), "problem+json")


def test_a_schema_of_its_own() -> None:
    assert problem_with(operation({"error": {"code": "E1"}}, media="application/json"), OWN) == ""
    assert problem_with(operation({"error": {"code": "E1"}}, media="application/vnd.acme+json; v=1"), OWN) == ""
    assert (
        problem_with(operation({"error": {"code": 1}}, media="application/json"), OWN)
        == "$.error.code: 1 is not of type 'string'"
    )
    assert "'error' is a required property" in problem_with(operation({}, media="application/json"), OWN)
    assert "not JSON" in problem_with(operation({"error": {"code": "E1"}}, media="text/plain"), OWN)


LEAKS = [
    'Traceback (most recent call last):\n  File "/srv/app.py", line 3, in get',
    "java.lang.IllegalStateException: x\n\tat com.acme.Orders.get(Orders.java:41)",
    "org.postgresql.util.PSQLException: FATAL: the database system is starting up",
    "panic: runtime error: index out of range\n\ngoroutine 1 [running]:\nmain.main()\n\t/srv/main.go:10 +0x1d",
    "Error: x\n    at Object.<anonymous> (/srv/app/server.js:10:15)",
    "TypeError: x\n    at async handle (file:///srv/server.mjs:4:9)",
    "Error\n    at node:internal/main/run_main_module:23:47",
    "thread 'main' panicked at src/main.rs:2:5",
    "<b>Fatal error</b>: Uncaught PDOException in /var/www/index.php:12",
    "/srv/app/models/item.rb:10:in `find'",
    "   at Acme.Orders.Get(Int32 id) in /src/Orders.cs:line 12",
    "Npgsql.NpgsqlException (0x80004005): Failed to connect",
    'SELECT id, name FROM "items" WHERE id = $1',
    "[SQL: select items.id from items]",
    "could not execute query: select i1_0.id,i1_0.name from items i1_0 where i1_0.id=?",
    "select name from items where id = $1",
    "INSERT INTO items (name) VALUES ($1)",
    "UPDATE items SET name = $1",
    "postgresql://app@db.internal/app",
    "jdbc:postgresql://db/app",
    "dial tcp 10.0.0.3:5432: connect: connection refused",
    "host=db.internal port=6543 user=app dbname=app",
    "failed to connect to `user=app database=app`: server error",
    'connection to server at "localhost" (127.0.0.1), port 40123 failed: Connection refused',
    'FATAL:  password authentication failed for user "app"',
    'duplicate key value violates unique constraint "items_name_key"',
    'relation "items" does not exist\nLINE 1: SELECT 1',
    'invalid input syntax for type integer: "x"',
    "canceling statement due to statement timeout",
    "SQLSTATE[08006] [7]",
    "(psycopg2.OperationalError) server closed the connection unexpectedly",
    "asyncpg.exceptions.TooManyConnectionsError: sorry, too many clients already",
    "connect ECONNREFUSED 127.0.0.1:40001",
    "SSL error: certificate verify failed",
    "x509: certificate signed by unknown authority",
    "pq: SSL is not enabled on the server",
    "HikariPool-1 - Connection is not available, request timed out after 3000ms",
    "couldn't get a connection after 3.00 sec",
    "QueuePool limit of size 5 overflow 10 reached",
    "[Errno 111] Connect call failed ('127.0.0.1', 40001)",
    'root certificate file "/run/ca.pem" does not exist',
    "cannot read /etc/ssl/private/server.key",
]


@pytest.mark.parametrize("text", LEAKS)
def test_leaks(text: str) -> None:
    assert leak(text)
    body = {"title": "Internal error", "detail": text}
    assert "it tells" in problem_with(operation(body, status=400), "problem+json")
    assert "it tells" in problem_with(operation({"error": {"code": text}}, media="application/json"), OWN)


INSIDE = [
    "no answer from orders-db-0.orders.svc.cluster.local",
    "cannot reach orders.abc123.eu-west-1.rds.amazonaws.com",
    "upstream 10.0.3.7 did not answer",
    "10.0.3.7:8080 refused",
    "ip-10-0-3-7 is down",
    "/srv/orders/settings.py is missing",
    "no such file: /usr/local/lib/python3.11/site-packages",
    "cannot read C:\\inetpub\\orders\\web.config",
]


@pytest.mark.parametrize("text", INSIDE)
def test_names_and_places_of_the_inside(text: str) -> None:
    assert leak(text)
    assert "it tells" in problem_with(operation({"title": "x", "detail": text}), "problem+json")


def test_where_hosts_are_what_was_asked_about_none_is_a_leak() -> None:
    asked = operation({"title": "unknown host", "detail": "10.0.3.7:8080 is not served"}, kind=Kind.HOST)
    assert problem_with(asked, "problem+json") == ""


INNOCENT = [
    "the client 10.0.3.7 is not allowed",
    "version 10.2.3.4 is not supported",
    "the code is errors.internal",
    "see /app/main.js and /home/dashboard/widgets/3",
    "the file /reports/2024.log is not yours",
    "use GET /opt/outs or /etc/",
    "Please select one from the list, or update your profile and set a name.",
    "Select a date from the calendar where available",
    "File a report, line 3 is missing",
    "The database is temporarily unavailable, try again in 2 s",
    "not connected to the database",
    "could not connect to the upstream service",
    "the type 'widget' does not exist",
    'column "colour" does not exist on this resource',
    "the item does not exist",
    "Invalid host 'evil.example:5433' is not allowed",
    "host=evil.example is not allowed",
    "see https://example.test/errors/NotFoundError and https://example.test/ca.crt",
    "urn:problem:acme:errors.orders.NotFoundError",
    "connection pool exhausted, retry later",
    "the slot at /slots/2024-01-01T10:20:30 is taken",
    "user=unknown",
    "timeout",
    "Fatal: order rejected",
    "the value of status at (1:2) is wrong",
    "'name' must be unique",
    "certificate of birth is required",
    "go to line 10: the name is missing",
]


@pytest.mark.parametrize("text", INNOCENT)
def test_innocent_texts(text: str) -> None:
    assert leak(text) == ""
    assert problem_with(operation({"title": "x", "detail": text}), "problem+json") == ""


def test_what_the_request_itself_said_is_no_leak() -> None:
    path = "/files/etc/server.key"
    assert problem_with(operation({"title": "Not found", "instance": path}, path=path), "problem+json") == ""


def test_private_values() -> None:
    assert "private value" in problem_with(operation({"detail": "role app_rw"}), "problem+json", private=("app_rw", ""))


def history(*operations: Operation) -> History:
    return History(experiment="network.refused", started=0.0, operations=operations)


def test_judge_counts_the_applications_errors_only() -> None:
    right = operation({"title": "x"})
    finding = judge(
        history(
            *([right] * 9),
            operation("no", media="text/plain", path="/items/7?x=1"),
            operation("Bad Request", media="text/plain", layer=Layer.SERVER),
            operation({"title": "gone"}, status=502, layer=Layer.EDGE),
            operation("ok", status=200, media="text/plain"),
        ),
        "problem+json",
    )
    assert finding is not None
    assert (finding.check, finding.gate, finding.n, finding.bad) == ("errors.network.refused", "rel.error_schema", 10, 1)
    assert finding.outcome is Outcome.FAIL
    assert "1 x GET /items/* 400 (application): media type text/plain" in finding.detail
    assert "1 x 400 by the server, for the application never saw the request, in another form" in finding.detail
    assert "1 x 502 by the edge, for the application never saw the request" in finding.detail
    assert "no" in finding.examples[0]


def test_judge_with_nothing_wrong_or_nothing_at_all() -> None:
    passed = judge(history(operation({"title": "x"})), "problem+json")
    assert passed is not None
    assert (passed.outcome, passed.n, passed.bad) == (Outcome.PASS, 1, 0)
    assert judge(history(operation("ok", status=200)), "problem+json") is None
    only = judge(history(operation("Bad", media="text/plain", layer=Layer.SERVER)), "problem+json")
    assert only is not None
    assert (only.outcome, only.n) == (Outcome.NOT_APPLICABLE, 0)


def test_few_wrong_among_many_are_not_enough_to_say() -> None:
    finding = judge(history(*([operation({"title": "x"})] * 700), operation("no", media="text/plain")), "problem+json")
    assert finding is not None
    assert (finding.outcome, finding.n, finding.bad) == (Outcome.INCONCLUSIVE, 701, 1)
