"""`python -m benchmarks.scale`: what sharing costs a Redis, and how much of it one server bears.

Measured on a real server: how long a script blocks it, memory, what the exchanges of some targets
cost it, and how soon all know what one has learnt. From these follow commands and processor time
for 1 to 1,000 targets. Routers pass calls on one by one: to the server they are connections, and as
such they are measured. The last line printed is one JSON object. QUICK=1: within 30 s.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import is_quick
from benchmarks.scale_server import Server, running_server
from benchmarks.scale_tables import CONTEXTS, LONGEST_DRAFT, cells, fill, show_epochs, show_memory
from benchmarks.spread import Spread, print_table
from cluster.statistics.exchange import Exchange
from cluster.statistics.exchange_thread import ExchangeThread
from cluster.statistics.keys import PAST_UNIT, Table
from cluster.statistics.store import MAX_CELLS, Batch, Fold, Status, WriterRecord

STEPS_PER_S = 4.0
TARGETS = (1, 10, 100, 1000)
ROUTERS = (1, 10, 50)
CHANGED = 60  # cells that a tenant's rounds of a quarter of a second change, by the measure below


@dataclass(frozen=True, slots=True)
class Size:
    repeats: int
    num_steps: int
    num_targets: int
    crowds: tuple[int, ...]
    num_trials: int


FULL = Size(200, 40, 8, (2, 8, 32), 10)
QUICK = Size(20, 6, 3, (2,), 2)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a second of one target, with `num_tenants` active on it and on all others."""

    num_tenants: int
    num_calls: float
    busy_s: float


def main() -> int:
    size = QUICK if is_quick() else FULL
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder)) as server:
        print(f"server: {server.version}; {CONTEXTS} contexts, drafts of {LONGEST_DRAFT}")
        worst_ms = show_scripts(server, size)
        kib = show_memory(server)
        epochs = show_epochs(server, size.repeats)
        routers = show_routers(server, size)
        costs = [measure_exchanges(server, tenants, size) for tenants in (1, 4, 16)]
        converged_s = show_convergence(server, size)
    show_targets(costs)
    figures = {
        "worst_script_p95_ms": worst_ms,
        "kib_per_table": kib,
        "kib_and_ms_by_epochs": epochs,
        "us_per_call_by_routers": routers,
        "converged_s": converged_s,
        "busy_ms_per_target_s": {c.num_tenants: round(1e3 * c.busy_s, 2) for c in costs},
    }
    print(json.dumps(figures))
    return 0


def show_scripts(server: Server, size: Size) -> float:
    """Prints how long calls block the server; returns the milliseconds that 19 of 20 calls of the
    worst script stay below. (The highest are also of a server that had to wait for a core.)"""
    _fold(server, ["x"], 1)  # loads the script, as all that follow are to find it loaded
    _clear(server, ["x"], 1)
    scripts: dict[str, list[float]] = {}
    others: dict[str, list[float]] = {}
    for num_drafters in (2, 8):
        names = cells(num_drafters)
        table = f"table of {len(names)}"
        for num_cells in (CHANGED, MAX_CELLS):
            scripts[f"merge {num_cells}, {table}"] = _merge(server, names, num_cells, size.repeats)
        scripts[f"fold {MAX_CELLS}, {table}"] = _fold(server, names, size.repeats // 10)
        scripts[f"clear, {table}"] = _clear(server, names, size.repeats // 10)
        others[f"read a {table}"] = _read(server, names, size.repeats)
    for num_tables in (300, 3000):
        others[f"poll {num_tables} tables' versions"] = _poll(server, num_tables, size.repeats)
    rows = [[name, Spread.of(times)] for name, times in (scripts | others).items()]
    print_table("milliseconds that a call blocks the server", ["", "ms"], rows)
    return round(max(float(np.quantile(times, 0.95)) for times in scripts.values()), 2)


def _merge(server: Server, names: Sequence[str], num_cells: int, repeats: int) -> list[float]:
    server.flush()
    fill(server, "t", names)
    generator, last = np.random.default_rng(0), -(-len(names) // MAX_CELLS)
    with server.watched("evalsha") as times:
        for number in range(last, last + repeats):
            chosen = generator.permutation(len(names))[:num_cells].tolist()
            totals = {names[i]: 1000 + number for i in chosen}
            receipt = server.store.merge(
                Batch(Table("t", server.epoch), "w", number, number + 1, totals)
            )
            assert receipt.status is Status.APPLIED
    return times


def _fold(server: Server, names: Sequence[str], repeats: int) -> list[float]:
    """A closed table's cells into the past."""
    server.flush()
    for number in range(repeats):
        fill(server, f"t{number}", names)
    chosen = tuple(names[:MAX_CELLS])
    with server.watched("evalsha") as times:
        for number in range(repeats):
            source = Table(f"t{number}", server.epoch)
            past = Table(source.tenant, source.epoch, "past")
            server.closing_store.fold(Fold(source, past, float(PAST_UNIT), chosen))
    return times


def _clear(server: Server, names: Sequence[str], repeats: int) -> list[float]:
    server.flush()
    for number in range(repeats):
        fill(server, f"t{number}", names)
    with server.watched("evalsha") as times:
        for number in range(repeats):
            server.store.clear(Table(f"t{number}", server.epoch), {"w": WriterRecord(1)})
    return times


def _read(server: Server, names: Sequence[str], repeats: int) -> list[float]:
    server.flush()
    fill(server, "t", names)
    with server.watched("hgetall", ":live:") as times:
        for _ in range(repeats):
            server.store.read({}, 1)
    return times


def _poll(server: Server, num_tables: int, repeats: int) -> list[float]:
    server.flush()
    for number in range(num_tables):
        fill(server, f"t{number}", ["x"])
    with server.watched("hgetall") as times:
        for _ in range(repeats):
            server.store.read({}, 0)
    return times


def show_routers(server: Server, size: Size) -> dict[int, float]:
    """Prints and returns the server's microseconds of a call: always of as many targets, whose
    calls come over each number of connections."""
    names, generator, found, rows = cells(2), np.random.default_rng(0), {}, []
    for num_routers in ROUTERS:
        server.flush()
        before = server.used_bytes
        routers = [server.connection() for _ in range(num_routers)]
        targets = [server.exchange(routers[n % num_routers]) for n in range(max(ROUTERS))]
        for target in targets:
            assert target.step(), target.counters.last_error
        kib = (server.used_bytes - before) / num_routers / 1024
        busy_s, num_calls = server.busy_s, server.num_calls
        for number in range(max(ROUTERS) * max(2, size.num_steps // 4)):
            chosen = generator.permutation(len(names))[:CHANGED].tolist()
            target = targets[number % len(targets)]
            target.add("t", {names[i]: 1 for i in chosen})
            assert target.step(), target.counters.last_error
        us = 1e6 * (server.busy_s - busy_s) / (server.num_calls - num_calls)
        found[num_routers] = round(us, 1)
        rows.append([f"{num_routers} connections", f"{us:.0f}", f"{kib:.0f}"])
    print_table("the server's processor time", ["", "us a call", "KiB a connection"], rows)
    return found


def measure_exchanges(server: Server, num_tenants: int, size: Size) -> Cost:
    """`num_targets` targets step in turns; each changes some cells of every tenant."""
    server.flush()
    names, generator = cells(2), np.random.default_rng(0)
    targets = [server.exchange() for _ in range(size.num_targets)]
    for target in targets:
        for tenant in range(num_tenants):
            target.add(f"t{tenant}", dict.fromkeys(names, 1))
        target.step()
    busy_s, num_calls = server.busy_s, server.num_calls
    for _ in range(size.num_steps):
        for target in targets:
            for tenant in range(num_tenants):
                chosen = generator.permutation(len(names))[:CHANGED].tolist()
                target.add(f"t{tenant}", {names[i]: 1 for i in chosen})
            assert target.step(), target.counters.last_error
    seconds = size.num_steps * size.num_targets / STEPS_PER_S
    return Cost(
        num_tenants,
        (server.num_calls - num_calls) / seconds,
        (server.busy_s - busy_s) / seconds,
    )


def show_convergence(server: Server, size: Size) -> dict[int, float]:
    """Prints and returns the median seconds until all targets know what one has counted."""
    rows, found = [], {}
    for num_targets in size.crowds:
        server.flush()
        targets = [server.exchange() for _ in range(num_targets)]
        threads = [ExchangeThread(target) for target in targets]
        for thread in threads:
            thread.__enter__()
        times = [_spread_s(targets, number + 1) for number in range(size.num_trials)]
        for thread in threads:
            thread.__exit__()
        spread = Spread.of(times)
        found[num_targets] = round(spread.median, 2)
        rows.append([f"{num_targets} targets", str(spread)])
    print_table("seconds until all know what one has counted", ["", "s"], rows)
    return found


def _spread_s(targets: list[Exchange], number: int) -> float:
    start_s = time.monotonic()
    targets[0].add("t", {"x": 1})
    while any(target.snapshot.counts("t", 1e9).get("x", 0.0) < number for target in targets):
        time.sleep(0.005)
    return time.monotonic() - start_s


def show_targets(costs: list[Cost]) -> None:
    """Extrapolates: a target costs what one of the measured few does, and all tables change."""
    rows = [
        [f"{cost.num_tenants} active tenants", *(_load(cost, targets) for targets in TARGETS)]
        for cost in costs
    ]
    title = "calls/s and share of one core of the server, extrapolated from a few targets"
    print_table(title, ["", *(f"{targets} targets" for targets in TARGETS)], rows)


def _load(cost: Cost, num_targets: int) -> str:
    return f"{num_targets * cost.num_calls:.0f} {num_targets * cost.busy_s:.0%}"


if __name__ == "__main__":
    sys.exit(main())
