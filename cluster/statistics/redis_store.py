"""The store in Redis (6.2 and newer) or Valkey: one Lua script per operation that writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from redis import Redis, RedisError, ResponseError

from cluster.statistics.keys import PREFIX, Pool, Table, key, pool_of, table_of
from cluster.statistics.store import (
    MAX_CELLS,
    Batch,
    Fold,
    Lifetimes,
    Reading,
    Receipt,
    Status,
    StoreError,
    TableState,
    WriterRecord,
)

Result = TypeVar("Result")
_WRITER_MARK = "@"


class RedisStore:
    """`client` decodes responses and never retries; see `cluster.statistics.client`."""

    def __init__(self, client: Redis, pool: Pool, lifetimes: Lifetimes | None = None) -> None:
        self._client = client
        self._pool = pool
        self._lifetimes = lifetimes or Lifetimes()
        self._merge, self._fold, self._clear = (
            client.register_script(Path(__file__).with_name(f"{name}.lua").read_text("utf-8"))
            for name in ("merge", "fold", "clear")
        )

    def merge(self, batch: Batch) -> Receipt:
        assert 0 < len(batch.totals) <= MAX_CELLS
        name = batch.table.name
        keys = [self._key(name), self._key("writer", batch.writer, name), self._key("index")]
        arguments: list[str | int] = [batch.writer, batch.base, batch.sequence, name]
        arguments += [batch.table.epoch, self._lifetimes.epoch_s, self._retention_ms]
        for pair in batch.totals.items():
            arguments += pair
        answer = _guarded(lambda: self._merge(keys, arguments))
        try:
            status, *numbers = cast(list[str], answer)
            return Receipt(Status(status), *map(int, numbers))
        except (TypeError, ValueError) as error:
            raise StoreError(f"merge: {answer!r} is no receipt") from error

    def read(self, known: Mapping[Table, int], max_tables: int) -> Reading:
        time, index = self._pipeline(("TIME",), ("HGETALL", self._key("index")))
        named = {table_of(name): number for name, number in _fields(index).items()}
        versions = {
            table: int(number)
            for table, number in named.items()
            if table is not None and number.isdecimal()
        }
        changed = [table for table in versions if known.get(table) != versions[table]]
        changed = changed[:max_tables]
        states = self._pipeline(*(("HGETALL", self._key(table.name)) for table in changed))
        if not isinstance(time, Sequence) or len(time) != 2:
            raise StoreError(f"TIME: {time!r} is no time")
        return Reading(
            int(time[0]) * 1_000_000 + int(time[1]),
            versions,
            {t: _state(_fields(state)) for t, state in zip(changed, states, strict=True)},
        )

    def fold(self, fold: Fold) -> None:
        assert len(fold.cells) <= MAX_CELLS
        target = fold.target or fold.source
        writers = [self._key("writer", writer, fold.source.name) for writer in fold.writers]
        lifetimes = self._lifetimes
        arguments: list[str | int] = [fold.source.name, target.name, repr(fold.factor)]
        arguments += [fold.source.epoch + 2 * lifetimes.epoch_s, self._retention_ms]
        arguments += [lifetimes.echo_epochs * lifetimes.epoch_s * 1000, int(fold.is_last)]
        for record in fold.writers.items():
            arguments += record
        if fold.target is not None:
            arguments += fold.cells
        keys = [self._key(fold.source.name), self._key(target.name), self._key("index"), *writers]
        _guarded(lambda: self._fold(keys, arguments))

    def clear(self, table: Table, writers: Mapping[str, WriterRecord]) -> None:
        totals = [self._key("writer", writer, table.name) for writer in writers]
        keys = [self._key(table.name), self._key("index"), *totals]
        _guarded(lambda: self._clear(keys, [table.name, self._retention_ms]))

    @property
    def _retention_ms(self) -> int:
        return self._lifetimes.retention_s * 1000

    def _key(self, *parts: str) -> str:
        return key(self._pool, *parts)

    def _pipeline(self, *commands: tuple[str, ...]) -> list[Any]:
        """Answers in order; that of a key of a wrong type is the error."""
        if not commands:
            return []

        def execute() -> list[Any]:
            with self._client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                return pipeline.execute(raise_on_error=False)

        answers = _guarded(execute)
        for answer in answers:
            if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
                raise StoreError(str(answer)) from answer
        return answers


def pools(client: Redis) -> list[tuple[int, Pool]]:
    """The schema version and pool of everything that is stored; scans the keys."""
    found = _guarded(lambda: set(map(pool_of, client.scan_iter(f"{PREFIX}*:index", count=1000))))
    return sorted((each for each in found if each), key=lambda each: (each[0], str(each[1])))


def _guarded(call: Callable[[], Result]) -> Result:
    try:
        return call()
    except (RedisError, OSError) as error:
        raise StoreError(f"{type(error).__name__}: {error}") from error


def _fields(answer: Any) -> dict[str, str]:
    """A hash; a key of a wrong type counts as absent, the next merge makes it anew."""
    if isinstance(answer, ResponseError):
        return {}
    if not isinstance(answer, dict):
        raise StoreError(f"{answer!r} is no hash")
    return answer


def _state(fields: Mapping[str, str]) -> TableState:
    cells, writers = {}, {}
    for name, value in fields.items():
        number = value.removeprefix("f")
        if name.startswith(_WRITER_MARK):
            if number.isdecimal():
                writers[name[1:]] = WriterRecord(int(number), number != value)
        elif number == value and value.removeprefix("-").isdecimal():
            cells[name] = int(value)
    return TableState(cells, writers)
