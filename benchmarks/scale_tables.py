"""Tenants' tables on a real server: filled with every cell, and what they take by epochs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.scale_server import Server
from benchmarks.spread import Spread, print_table
from cluster.statistics.keys import Table
from cluster.statistics.store import MAX_CELLS, Batch, Lifetimes, Status
from policies.features import Features

CONTEXTS = Features().num_cells
LONGEST_DRAFT = 16


def cells(num_drafters: int) -> list[str]:
    """The survival cells of a tenant."""
    return [
        f"s:drafter{drafter}:{context}:{depth}:{count}"
        for drafter in range(num_drafters)
        for context in range(CONTEXTS)
        for depth in range(1, 1 + LONGEST_DRAFT)
        for count in "rp"
    ]


def fill(
    server: Server, tenant: str, names: Sequence[str], writer: str = "w", epochs_ago: int = 0
) -> None:
    table = Table(tenant, server.epoch - epochs_ago * Lifetimes().epoch_s)
    for number, start in enumerate(range(0, len(names), MAX_CELLS)):
        totals = dict.fromkeys(names[start : start + MAX_CELLS], 1000)
        receipt = server.store.merge(Batch(table, writer, number, number + 1, totals))
        assert receipt.status is Status.APPLIED


def show_memory(server: Server) -> dict[int, float]:
    """Prints and returns KiB of a tenant's table, by drafters; a writer's totals are as many."""
    rows, found = [], {}
    for num_drafters in (2, 8):
        names, sizes = cells(num_drafters), []
        for num_writers in (1, 2):
            server.flush()
            before = server.used_bytes
            for tenant in range(20):
                for writer in range(num_writers):
                    fill(server, f"t{tenant}", names, f"w{writer}")
            sizes.append((server.used_bytes - before) / 20 / 1024)
        totals = sizes[1] - sizes[0]
        found[num_drafters] = round(sizes[0] - totals, 1)
        rows.append([f"{num_drafters} drafters", f"{sizes[0] - totals:.0f}", f"{totals:.0f}"])
    title = "KiB with every cell in use: a tenant's table (an epoch's, or the past), and a"
    print_table(f"{title} writer's totals in it", ["", "table", "totals"], rows)
    return found


def show_epochs(server: Server, repeats: int) -> dict[int, tuple[float, float]]:
    """Prints and returns KiB of a tenant, and milliseconds until a fresh process has read it, by
    the epochs whose tables there are. More than three there never are: older ones are folded into
    one table of the past, which is as large."""
    names, found, rows = cells(2), {}, []
    for num_epochs in (1, 2, 3):
        server.flush()
        before = server.used_bytes
        for tenant in range(20):
            for epoch in range(num_epochs):
                fill(server, f"t{tenant}", names, epochs_ago=epoch - 1)
        kib, times = (server.used_bytes - before) / 20 / 1024, []
        for _ in range(max(3, repeats // 20)):
            start_s = time.monotonic()
            assert len(server.store.read({}, 1000).tables) == 20 * num_epochs
            times.append((time.monotonic() - start_s) * 1e3 / 20)
        spread = Spread.of(times)
        found[num_epochs] = round(kib, 1), round(spread.median, 2)
        rows.append([f"{num_epochs} epochs", f"{kib:.0f}", str(spread)])
    title = "of a tenant with two drafters, each epoch with one writer's totals"
    print_table(title, ["", "KiB", "ms to read it all"], rows)
    return found
