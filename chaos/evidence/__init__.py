"""What a run leaves behind: what was recorded (`store`), what was made of it (`record`), and how both are shown (`bundle`).

    history  -> Segment, one SQLite file a worker -> merge -> Store
    Run      -> evidence.json, junit.xml, report.html, scorecard.pdf and .html

Everything that leaves the program as text has gone through `redact`.
"""
