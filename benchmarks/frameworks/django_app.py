"""Django with three routes and the middleware of `startproject` that needs no database.

TRUSTED=1 sets ALLOWED_HOSTS; without it that is ["*"], for the default, [], serves nobody. COMMON=0 leaves CommonMiddleware out.
"""

import json
import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path, reverse
from django.views.decorators.csrf import csrf_exempt

HOSTS = ["app.example.test", "www.example.org", ".pages.example.test", "127.0.0.1"]
COMMON = [] if os.environ.get("COMMON") == "0" else ["django.middleware.common.CommonMiddleware"]
settings.configure(
    ALLOWED_HOSTS=HOSTS if os.environ.get("TRUSTED") else ["*"],
    SECRET_KEY="only-for-this-table",
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        *COMMON,
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    INSTALLED_APPS=[],
    LOGGING_CONFIG=None,
)
django.setup()


def item(request, number):
    """With CommonMiddleware left out, nothing asks for the host of a request that needs no address of its own: so here."""
    link = request.build_absolute_uri() if COMMON else reverse("item", args=[number])
    return JsonResponse({"id": number, "self": link})


@csrf_exempt
def create(request):
    where = reverse("item", args=[1])
    answer = JsonResponse({"name": json.loads(request.body)["name"]}, status=201)
    answer["Location"] = request.build_absolute_uri(where) if COMMON else where
    return answer


def health(_request):
    return JsonResponse({"status": "up"})


urlpatterns = [path("items/<int:number>", item, name="item"), path("items", create), path("healthz", health)]
application = get_wsgi_application()
