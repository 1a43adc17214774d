"""The operator's command line: `hedgerow check`, `hedgerow stats`, `hedgerow tenants`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.check import check_file
from cluster.statistics import command as statistics
from cluster.tenants import command as tenants


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: fine, 1: problems (one per line, on stderr), 2: usage."""
    parser = argparse.ArgumentParser(prog="hedgerow", description="Operates a Hedgerow cluster.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="name every mistake in a Ray Serve config file")
    check.add_argument("config", type=Path, help="the file, such as ray_config.yaml")
    stats = commands.add_parser("stats", help="show, reset, export or import what was learnt")
    statistics.add_arguments(stats)
    people = commands.add_parser("tenants", help="who may use the cluster, and how much of it")
    tenants.add_arguments(people)
    found = parser.parse_args(arguments)
    runs = {"check": _check, "stats": statistics.run, "tenants": tenants.run}
    return runs[found.command](found)


def _check(arguments: argparse.Namespace) -> int:
    config: Path = arguments.config
    problems = check_file(config)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{config}: ok")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
