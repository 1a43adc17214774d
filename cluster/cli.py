"""The operator's command line: `hedgerow check`, `render`, `stats` and `tenants`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.check import check_file
from cluster.reference import configuration_page
from cluster.serve_config import ServeConfigError, json_patch, serve_config
from cluster.statistics import command as statistics
from cluster.tenants import command as tenants
from cluster.yaml_file import dump_yaml


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: fine, 1: problems (one per line, on stderr), 2: usage."""
    parser = argparse.ArgumentParser(prog="hedgerow", description="Operates a Hedgerow cluster.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="name every mistake in a Ray Serve config file")
    check.add_argument("config", type=Path, help="the file, such as ray_config.yaml")
    render = commands.add_parser("render", help="print the Serve config that a values file makes")
    render.add_argument("values", type=Path, help="such as k8s/overlays/prod/values.yaml")
    render.add_argument(
        "--patch", type=Path, metavar="FILE", help="write it as a patch of serveConfigV2 instead"
    )
    commands.add_parser("reference", help="print the page of all configuration keys")
    stats = commands.add_parser("stats", help="show, reset, export or import what was learnt")
    statistics.add_arguments(stats)
    people = commands.add_parser("tenants", help="who may use the cluster, and how much of it")
    tenants.add_arguments(people)
    found = parser.parse_args(arguments)
    runs = {
        "check": _check,
        "render": _render,
        "reference": _reference,
        "stats": statistics.run,
        "tenants": tenants.run,
    }
    return runs[found.command](found)


def _check(arguments: argparse.Namespace) -> int:
    config: Path = arguments.config
    problems = check_file(config)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{config}: ok")
    return 1 if problems else 0


def _reference(arguments: argparse.Namespace) -> int:
    print(configuration_page(), end="")
    return 0


def _render(arguments: argparse.Namespace) -> int:
    patch: Path | None = arguments.patch
    try:
        document = serve_config(arguments.values)
    except ServeConfigError as error:
        print(error, file=sys.stderr)
        return 1
    if patch is None:
        print(dump_yaml(document), end="")
    else:
        patch.write_text(json_patch(document), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
