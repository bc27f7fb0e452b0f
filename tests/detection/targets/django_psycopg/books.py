"""Books: Django's ORM over psycopg 3, gunicorn with sixteen threads, a connection for each of them that is checked before each use.

Why it is healthy:
- `bounded` limits each wait on a connection to 1.3 s and connect_timeout limits connecting to 2 s, the least that libpq obeys.
- Each thread connects for itself, so an outage would be met by sixteen at a time. `Store` lets one try pass after each wait (doubling, two
  seconds at most, fully jittered) and refuses the others at once; at most eight use the database side by side, so threads are left over.
- Everything is answered through `Outermost`: hosts are judged before anything else, and whatever leaves with 400 or more is a problem.
- A form is judged before the store is asked for.
- No Idempotency-Key, and nothing is retried.

Style: everything is 422 that is not right in a request's content. A connection for each request (CONN_MAX_AGE = 0, Django's default) was
tried first: TLS and SCRAM each time were too much for two busy cores, and a third of the healthy requests found no free slot.
"""

import json
import logging
import os
import random
import re
import sys
import threading
import time
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path

URL = urlsplit(os.environ.get("DATABASE_URL", ""))
settings.configure(
    ALLOWED_HOSTS=["*"],  # `Outermost` is stricter
    SECRET_KEY="only-for-tests", ROOT_URLCONF=__name__, MIDDLEWARE=[f"{__name__}.Outermost"], INSTALLED_APPS=[], USE_TZ=False, APPEND_SLASH=False,
    DATA_UPLOAD_MAX_MEMORY_SIZE=65536, LOGGING_CONFIG=None, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {
        "ENGINE": "bounded", "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True, "HOST": URL.hostname, "PORT": URL.port, "USER": URL.username, "PASSWORD": unquote(URL.password or ""), "NAME": URL.path[1:],
        "OPTIONS": {**{key: values[0] for key, values in parse_qs(URL.query).items()}, "connect_timeout": 2, "gssencmode": "disable",
                    "options": "-c statement_timeout=1200 -c lock_timeout=800"},
    }},
)
django.setup()

from django.db import connection, models  # Django wants its settings first
from django.db.utils import DatabaseError, DataError, IntegrityError, InterfaceError, ProgrammingError

LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
HOST = re.compile(rf"({LABEL}(?:\.{LABEL})*)(?::([1-9][0-9]{{0,4}}))?")
log = logging.getLogger("books")


class Book(models.Model):
    title = models.CharField(max_length=120, db_index=True)

    class Meta:
        app_label = "books"
        db_table = "books"


class Unavailable(Exception):
    """The store cannot be used now."""


class Wrong(Exception):
    """The caller's mistake: status, detail."""


class Store:
    def __init__(self):
        self.slots, self.lock = threading.BoundedSemaphore(8), threading.Lock()
        self.failures, self.next_try, self.trying = 0, 0.0, False

    def _may_try(self):
        with self.lock:
            if self.failures and (self.trying or time.monotonic() < self.next_try):
                raise Unavailable
            self.trying = True

    def _connected(self, good):
        with self.lock:
            self.trying = False
            self.next_try = time.monotonic() + random.uniform(0, min(2.0, 0.03 * 2 ** min(self.failures, 10)))
            self.failures = 0 if good else self.failures + 1

    @contextmanager
    def __call__(self):
        if not self.slots.acquire(timeout=0.2):
            raise Unavailable
        try:
            connection.close_if_health_check_failed()
            if connection.connection is None:
                self._connect()
            yield
        except (DataError, IntegrityError, ProgrammingError):
            raise
        except (DatabaseError, InterfaceError) as error:
            log.warning("store: %s", type(error).__name__)
            if getattr(error.__cause__, "sqlstate", None) != "55P03":  # lock_timeout: the connection is as good as before
                connection.close()
            raise Unavailable from error
        finally:
            self.slots.release()

    def _connect(self):
        self._may_try()
        good = False
        try:
            connection.ensure_connection()
            good = True
        finally:
            self._connected(good)


store = Store()


def problem(status, detail):
    answer = HttpResponse(json.dumps({"title": detail, "status": status}), status=status, content_type="application/problem+json")
    if status == 503:
        answer["Retry-After"] = "1"
    return answer


def known(host, where):
    found = HOST.fullmatch(host.strip(" \t").lower())
    if not found or int(found[2] or 80) > 65535:
        return False
    if found[1] == "127.0.0.1":
        return where in ("/healthz", "/readyz")
    return found[1] == "books.example.test" or found[1].endswith(".pages.example.test")


class Outermost:
    """The only middleware."""

    def __init__(self, handle):
        self.handle = handle

    def __call__(self, request):
        hosts, target = [request.META.get("HTTP_HOST", "")], request.META.get("RAW_URI", "/")
        if not target.startswith("/") and "://" in target:  # absolute: its authority counts too (RFC 9112, 3.2.2)
            hosts.append(urlsplit(target).netloc)
        if not all(known(host, request.path) for host in hosts):
            log.warning("audit: host refused")
            return problem(400, "unknown host")
        given = self.handle(request)
        if given.status_code >= 400 and given["Content-Type"] != "application/problem+json":
            return problem(given.status_code, given.reason_phrase)  # Django's own pages: 404, 400, 500
        return given

    def process_exception(self, request, error):
        if isinstance(error, Wrong):
            return problem(*error.args)
        if isinstance(error, Unavailable):
            return problem(503, "books are not available at the moment")
        log.error("bug: %s", type(error).__name__)
        return problem(500, "our mistake")


def only(**views):
    def view(request, **arguments):
        handler = views.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            answer = problem(405, "this method is not for this address")
            answer["Allow"] = ", ".join(views)
            return answer
        return handler(request, **arguments)

    return view


def title_of(value):
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value.strip()) <= 120:
        raise Wrong(422, "title is 1 to 120 printable characters")
    return value


def show(book):
    return {"id": book.id, "title": book.title}


def live(request):
    return JsonResponse({"live": True})


def ready(request):
    with store():
        return JsonResponse({"ready": Book.objects.exists()})


def search(request):
    title = title_of(request.GET.get("title"))
    with store():
        return JsonResponse({"books": [show(book) for book in Book.objects.filter(title=title).order_by("id")[:50]]})


def create(request):
    if request.content_type != "application/json":
        raise Wrong(415, "send application/json")
    try:
        body = json.loads(request.body)
    except ValueError:
        raise Wrong(422, "not JSON") from None
    title = title_of(body.get("title") if isinstance(body, dict) else None)
    with store():
        return JsonResponse(show(Book.objects.create(title=title)), status=201)


def one(request, number):
    if not re.fullmatch("[0-9]{1,18}", number):
        raise Wrong(422, "a number is expected")
    with store():
        book = Book.objects.filter(id=int(number)).first()
    if book is None:
        raise Wrong(404, "no such book")
    return JsonResponse(show(book))


def landing(request):
    with store():
        return HttpResponse(f"<!doctype html><title>Books</title><p>{Book.objects.all()[:50].count()} books")


urlpatterns = [
    path("healthz", only(GET=live)), path("readyz", only(GET=ready)), path("", only(GET=landing)),
    path("books", only(GET=search, POST=create)), path("books/<str:number>", only(GET=one)),
]
application = get_wsgi_application()

if __name__ == "__main__" and sys.argv[1:] == ["migrate"]:
    with store():
        if "books" not in connection.introspection.table_names():
            with connection.schema_editor() as editor:
                editor.create_model(Book)
        if not Book.objects.exists():
            Book.objects.create(title="first")
