"""The statistics store as targets see it: over the handle of the deployment Router."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from cluster.statistics.keys import Pool, Table
from cluster.statistics.store import Batch, Fold, Reading, Receipt, StoreError, WriterRecord

TIMEOUT_S = 2.0

Operation = Literal["merge", "read", "fold", "clear"]


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The router's answer while it has no store; as an error it would fill Serve's logs."""

    message: str


class RouterStore:
    """For a thread of its own: a call waits for the answer, at most `TIMEOUT_S`.

    A call that was given up may still be done later, which writers' sequence numbers see to.
    """

    def __init__(self, handle: Any, pool: Pool) -> None:
        self._handle = handle
        self._pool = pool

    def merge(self, batch: Batch) -> Receipt:
        return cast(Receipt, self._ask("merge", batch))

    def read(self, known: Mapping[Table, int], max_tables: int) -> Reading:
        return cast(Reading, self._ask("read", dict(known), max_tables))

    def fold(self, fold: Fold) -> None:
        self._ask("fold", fold)

    def clear(self, table: Table, writers: Mapping[str, WriterRecord]) -> None:
        self._ask("clear", table, dict(writers))

    def _ask(self, operation: Operation, *arguments: object) -> object:
        try:
            response = self._handle.ask.remote(self._pool, operation, *arguments)
            try:
                answer: object = response.result(timeout_s=TIMEOUT_S)
            except TimeoutError:
                response.cancel()
                raise
        except Exception as error:  # whatever Ray raises while the router is away
            reason = str(error).partition("\n")[0]
            raise StoreError(f"router: {type(error).__name__}: {reason}") from error
        if isinstance(answer, Unreachable):
            raise StoreError(answer.message)
        return answer
