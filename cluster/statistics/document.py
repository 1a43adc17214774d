"""Statistics as a JSON document, versioned, to keep or to carry elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.statistics.cells import MAX_NAME_LENGTH, MAX_TOTAL, NAME_PATTERN
from cluster.statistics.keys import Pool, Table
from cluster.statistics.replica import Snapshot
from cluster.statistics.store import (
    MAX_CELLS,
    Batch,
    Fold,
    Lifetimes,
    Reading,
    StatisticsStore,
    Status,
)

Text = Annotated[str, Field(max_length=MAX_NAME_LENGTH)]
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=MAX_NAME_LENGTH)]
Fingerprint = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class DocumentError(ValueError):
    """The document cannot be read; the message says where and why."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TablePart(_Part):
    tenant: Text
    epoch: Annotated[int, Field(ge=0, lt=10**15)]
    kind: Literal["live", "past"]
    cells: dict[Name, Annotated[int, Field(ge=-(2**62), le=2**62)]]


class PoolPart(_Part):
    model: Fingerprint
    drafters: Fingerprint
    now_s: Annotated[int, Field(ge=0, lt=10**15)]
    tables: list[TablePart]


class Document(_Part):
    """`now_s` is the store's time of the export, from which tables have their age."""

    format: Literal["hedgerow-statistics"]
    version: Literal[1]
    pools: list[PoolPart]


def export(readings: Mapping[Pool, Reading]) -> str:
    """The document, equal for equal contents."""
    pools = [
        PoolPart(
            model=pool.model,
            drafters=pool.drafters,
            now_s=reading.now_us // 1_000_000,
            tables=[
                TablePart(
                    tenant=table.tenant,
                    epoch=table.epoch,
                    kind=table.kind,
                    cells=dict(sorted(state.cells.items())),
                )
                for table, state in sorted(reading.tables.items(), key=lambda item: item[0])
            ],
        )
        for pool, reading in readings.items()
    ]
    document = Document(format="hedgerow-statistics", version=1, pools=pools)
    return document.model_dump_json(indent=1) + "\n"


def parse(text: str) -> Document:
    try:
        return Document.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise DocumentError(f"{place}: {first['msg']}") from error


def batches(part: PoolPart, epoch: int, half_life_s: float) -> Iterator[Batch]:
    """The part's counts, decayed to the day of the export, as one writer's in `epoch`.

    The writer's id comes from the contents: importing the same twice in an epoch counts once.
    """
    digest = hashlib.sha256(part.model_dump_json().encode()).hexdigest()[:16]
    tables = {Table(t.tenant, t.epoch, t.kind): t.cells for t in part.tables}
    snapshot = Snapshot(Lifetimes().epoch(part.now_s * 1_000_000), tables)
    for tenant in snapshot.tenants:
        counts = snapshot.counts(tenant, half_life_s).items()
        cells = iter([(name, round(count)) for name, count in sorted(counts) if round(count)])
        sequence = 0
        while chunk := dict(islice(cells, MAX_CELLS)):
            totals = {name: max(-MAX_TOTAL, min(MAX_TOTAL, n)) for name, n in chunk.items()}
            table, writer = Table(tenant, epoch), f"import-{digest}"
            yield Batch(table, writer, sequence, sequence + 1, totals)
            sequence += 1


def import_part(
    store: StatisticsStore, part: PoolPart, epoch: int, half_life_s: float
) -> tuple[int, int]:
    """The number of cells added, and of those that had been imported before."""
    num_added = num_known = 0
    last: dict[Table, Batch] = {}
    for batch in batches(part, epoch, half_life_s):
        last[batch.table] = batch
        if store.merge(batch).status is Status.APPLIED:
            num_added += len(batch.totals)
        else:
            num_known += len(batch.totals)
    for table, batch in last.items():
        store.fold(Fold(table, writers={batch.writer: batch.sequence}))
    return num_added, num_known
