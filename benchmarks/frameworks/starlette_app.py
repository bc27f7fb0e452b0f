"""Starlette with three routes. TRUSTED=1 switches its host validation on, as its documentation says."""

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route

HOSTS = ["app.example.test", "www.example.org", "*.pages.example.test", "127.0.0.1"]


async def item(request):
    number = request.path_params["number"]
    return JSONResponse({"id": number, "self": str(request.url_for("item", number=number))})


async def create(request):
    body = await request.json()
    return JSONResponse({"name": body["name"]}, 201, {"Location": str(request.url_for("item", number=1))})


async def health(_request):
    return JSONResponse({"status": "up"})


app = Starlette(
    routes=[
        Route("/items/{number:int}", item, name="item"),
        Route("/items", create, methods=["POST"]),
        Route("/healthz", health),
    ],
    middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)] if os.environ.get("TRUSTED") else [],
)
