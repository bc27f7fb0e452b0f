"""The reference service: a small shop on PostgreSQL that passes every gate, and the model of how to.

    python -m chaos.targets.reference.migrate     # the schema, once
    python -m chaos.targets.reference --port 8000 # DATABASE_URL says where the database is

Layers, outermost first; each is one file and one seam of `app.build_app`:

    protocol   bytes -> ASGI (uvicorn and llhttp); answers what is not HTTP as problem+json
    hosts      which Host is served which surface; everything else is 400
    envelope   request id, release, metrics, the request's line in the log
    app        routes, and the one place where an exception becomes an answer
    items      what the service does: checked input first, the database after it
    database   deadlines, retries, what a failure of the database means
    pool       connections: made by one keeper with capped, fully jittered backoff; the dead are never handed out twice

docs/reference-service.md says why each is as it is.
"""
