"""chaos-gate: break what is around a service on PostgreSQL, and prove or disprove its Go/No-Go gates."""

__version__ = "0.1.0"
