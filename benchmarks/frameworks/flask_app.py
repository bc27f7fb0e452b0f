"""Flask with three routes. TRUSTED=1 switches its host validation on, as its documentation says."""

import os

from flask import Flask, request, url_for

app = Flask(__name__)
if os.environ.get("TRUSTED"):
    app.config["TRUSTED_HOSTS"] = ["app.example.test", "www.example.org", ".pages.example.test", "127.0.0.1"]


@app.get("/items/<int:number>")
def item(number):
    return {"id": number, "self": url_for("item", number=number, _external=True)}


@app.post("/items")
def create():
    return {"name": request.get_json()["name"]}, 201, {"Location": url_for("item", number=1, _external=True)}


@app.get("/healthz")
def health():
    return {"status": "up"}
