"""The reference service whose answers are changed in exactly one way: `python changed_answers.py DEFECT PORT`."""

import json
import os
import re
import sys
from dataclasses import replace

from starlette.responses import Response

from chaos.targets.reference.__main__ import serve
from chaos.targets.reference.app import build_app
from chaos.targets.reference.settings import Settings

TRACE = 'Traceback (most recent call last):\n  File "/srv/orders/items.py", line 12, in listed\n    row = rows[0]\nIndexError'
PROBLEM = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "There is nothing here."}
ITEM = re.compile(r"/api/items/[1-9]\d{0,9}")
PAGE = "<html><h1>Internal Server Error</h1></html>"


class Answer:
    """Status, headers as a dict of text, body; and the request that it is for."""

    def __init__(self, scope, asked, status, headers, body):
        self.scope, self.asked, self.status, self.headers, self.body = scope, asked, status, headers, body
        self.path, self.method = scope["path"], scope["method"]

    @property
    def json(self):
        return json.loads(self.body)

    @json.setter
    def json(self, value):
        self.body = json.dumps(value).encode()

    @property
    def items(self):
        """The items in a good answer of the API."""
        if self.status >= 300 or "/items" not in self.path:
            return []
        value = self.json
        return value.get("items", [value])

    def each_item(self, change):
        """Every item changed in place."""
        if not self.items:
            return
        value = self.json
        for item in value.get("items", [value]):
            change(item)
        self.json = value

    def header(self, name):
        return dict(self.scope["headers"]).get(name.encode(), b"").decode("latin-1")


def problem(answer, status, title, **more):
    """Another problem in place of the answer."""
    answer.status = status
    answer.headers["content-type"] = "application/problem+json"
    answer.json = {**PROBLEM, "status": status, "title": title, **more}


# -- the candidate's -----------------------------------------------------------------------------------------------------------------


def as_it_is(answer, pool):
    """Nothing changed: the control."""


def member_removed(answer, pool):
    answer.each_item(lambda item: item.pop("created_at"))


def type_changed(answer, pool):
    answer.each_item(lambda item: item.update(id=str(item["id"])))


def member_is_null(answer, pool):
    answer.each_item(lambda item: item.update(created_at=None))


def created_is_200(answer, pool):
    if answer.status == 201:
        answer.status = 200


def requires_a_new_member(answer, pool):
    if answer.method == "POST" and answer.status == 201 and b'"owner"' not in answer.asked:
        problem(answer, 422, "Unprocessable Content", detail="owner: is required")


def endpoint_gone(answer, pool):
    if answer.path.startswith("/provider/"):
        problem(answer, 404, "Not Found")


def error_media_type_changed(answer, pool):
    if answer.status >= 400:
        answer.headers["content-type"] = "application/json"


def fails_where_it_refused(answer, pool):
    if answer.status == 404:
        problem(answer, 500, "Internal Server Error")


def header_gone(answer, pool):
    answer.headers.pop("location", None)


def described(change):
    """Only the description is another one."""

    def defect(answer, pool):
        if answer.path == "/openapi.json":
            value = answer.json
            change(value)
            answer.json = value

    return defect


def _narrow(document):
    document["components"]["schemas"]["NewItem"]["required"].append("email")


def _drop(document):
    del document["paths"]["/provider/v1/items/{id}"]


def _lie(document):
    document["components"]["schemas"]["Item"]["properties"]["name"] = {"type": "integer"}


def _grow(document):
    document["info"]["version"] = "v2"
    document["components"]["schemas"]["Item"]["properties"]["colour"] = {"type": "string"}
    document["paths"]["/api/colours"] = {"get": {"responses": {"200": {"description": "All colours"}}}}
    document["components"]["schemas"]["NewItem"]["properties"]["colour"] = {"type": "string"}


def only_adds(answer, pool):
    """A member, a header, a route and its description: what a client has to take."""
    described(_grow)(answer, pool)
    answer.each_item(lambda item: item.update(colour="blue"))
    answer.headers["x-colours"] = "1"


def description_is_broken(answer, pool):
    if answer.path == "/openapi.json":
        answer.body = b'{"openapi": "3.1.0", "paths": {'


def description_without_end(answer, pool):
    if answer.path == "/openapi.json":
        answer.body = b'{"openapi": "3.1.0", "paths": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001


# -- errors --------------------------------------------------------------------------------------------------------------------------


def in_detail(text):
    """An internal thing in the text of every 404 and 422."""

    def defect(answer, pool):
        if answer.status in {404, 422} and answer.body:
            words = text(answer) if callable(text) else text
            answer.json = {**answer.json, "detail": words}

    return defect


def html_500_on_one_route(answer, pool):
    """While the database is away, one route shows the server's own page, at once."""


def page_instead(scope, pool):
    """That page, when it is due."""
    away = pool.counts["idle"] + pool.counts["busy"] == 0
    return Response(PAGE, 500, media_type="text/html") if away and ITEM.fullmatch(scope["path"]) else None


def long_trace(answer, pool):
    """Behind more text than a log line holds."""
    in_detail("It went wrong. " * 600 + TRACE)(answer, pool)


DEFECTS = {
    one.__name__: one
    for one in (
        as_it_is,
        member_removed,
        type_changed,
        member_is_null,
        created_is_200,
        requires_a_new_member,
        endpoint_gone,
        error_media_type_changed,
        fails_where_it_refused,
        header_gone,
        only_adds,
        description_is_broken,
        description_without_end,
        html_500_on_one_route,
        long_trace,
    )
} | {
    "description_requires_more": described(_narrow),
    "description_lacks_a_route": described(_drop),
    "description_lies": described(_lie),
    "stack_trace": in_detail(TRACE),
    "sql": in_detail("could not run SELECT id, name FROM items WHERE id = $1"),
    "database_url": in_detail(lambda _: f"cannot use {os.environ['DATABASE_URL']}"),
    "database_host": in_detail(lambda _: "cannot reach " + re.search(r"@([^/?]+)", os.environ["DATABASE_URL"])[1]),
    "host_inside": in_detail("no answer from orders-db-0.orders.svc.cluster.local"),
    "file": in_detail("no such file: /srv/orders/settings.py"),
    "credential": in_detail(lambda answer: f"not allowed for {answer.header('authorization')}"),
}


def changed(app, change):
    """The application, with each answer given to `change` before it goes out."""
    inner = app.gate

    async def gate(scope, receive, send):
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        page = page_instead(scope, app.pool) if change is html_500_on_one_route else None
        if page is not None:
            await page(scope, receive, send)
            return
        asked, sent = bytearray(), []

        async def receiving():
            message = await receive()
            asked.extend(message.get("body", b""))
            return message

        async def collecting(message):
            sent.append(message)

        await inner(scope, receiving, collecting)
        headers = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        body = b"".join(message.get("body", b"") for message in sent[1:])
        answer = Answer(scope, bytes(asked), sent[0]["status"], headers, body)
        change(answer, app.pool)
        if scope["method"] != "HEAD":
            answer.headers["content-length"] = str(len(answer.body))
        raw = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": answer.body})

    return replace(app, gate=gate)


if __name__ == "__main__":
    made = replace(Settings.from_environment(), port=int(sys.argv[2]))
    sys.exit(serve(changed(build_app(made), DEFECTS[sys.argv[1]]), made))
