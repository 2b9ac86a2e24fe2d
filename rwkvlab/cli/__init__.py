"""Cli is the command line."""

from rwkvlab.cli.program import entry, main, parser
