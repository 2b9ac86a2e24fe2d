"""`python -m rwkvlab.cli`: the command line without its script."""

from rwkvlab.cli.program import entry

entry()
