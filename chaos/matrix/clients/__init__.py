"""The bundled drivers' clients: each a program of its own, run by `chaos.matrix.drivers`; nothing here is imported."""
