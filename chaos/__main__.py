"""`python -m chaos` is `chaos-gate`."""

from chaos.cli import main

main()
