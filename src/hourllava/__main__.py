"""`python -m hourllava`, and `torchrun ... -m hourllava`."""

from hourllava.cli.main import run

run()
