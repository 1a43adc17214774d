"""What tenants used is counted once, whatever is repeated, late or lost on its way."""

from __future__ import annotations

from dataclasses import fields

from redis import Redis
from tenant_stores import Backend

from cluster.limits import usage
from cluster.limits.usage import Account, Entry, Usage, UsageBook

DAY = "2026-11-21"
ACME, ZENITH = Account(DAY, "acme"), Account(DAY, "zenith")


def used(number: int) -> Usage:
    return Usage(*range(number, number + len(fields(Usage))))


def test_totals_of_all_writers_add_up_by_day_and_tenant(backend: Backend) -> None:
    backend.usage.write("a", [Entry(ACME, 1, used(1)), Entry(ZENITH, 1, used(5))])
    backend.usage.write(
        "b", [Entry(ACME, 1, used(10)), Entry(Account("2026-11-22", "acme"), 1, used(2))]
    )
    assert backend.usage.read([DAY]) == {ACME: used(1) + used(10), ZENITH: used(5)}
    assert set(backend.usage.read(["2026-11-22", "2026-11-23"])) == {Account("2026-11-22", "acme")}


def test_what_is_repeated_or_late_changes_nothing(backend: Backend) -> None:
    for sequence in (1, 3, 3, 2):
        backend.usage.write("a", [Entry(ACME, sequence, used(sequence))])
    assert backend.usage.read([DAY]) == {ACME: used(3)}


def test_a_book_writes_what_has_changed_until_it_is_acknowledged() -> None:
    book = UsageBook()
    book.add(ACME, used(1))
    lost = book.entries()
    assert [entry.total for entry in lost] == [used(1)]
    book.add(ACME, used(2))
    again = book.entries()
    assert [entry.total for entry in again] == [used(1) + used(2)]
    book.acknowledge(lost)
    assert [entry.account for entry in book.entries()] == [ACME]
    book.acknowledge(again)
    assert book.entries() == []


def test_a_store_that_lost_a_day_hears_of_it_again(backend: Backend) -> None:
    book = UsageBook()
    for account in (ACME, Account("2026-11-20", "acme")):
        book.add(account, used(1))
    first = book.entries()
    backend.usage.write("a", first)
    book.acknowledge(first)
    backend.flush()
    book.repeat(DAY)
    backend.usage.write("a", book.entries())
    assert backend.usage.read([DAY, "2026-11-20"]) == {ACME: used(1)}


def test_a_book_writes_no_more_at_once_than_the_store_takes() -> None:
    book = UsageBook()
    for number in range(usage.MAX_ENTRIES + 5):
        book.add(Account(DAY, f"t{number}"), used(1))
    first = book.entries()
    assert len(first) == usage.MAX_ENTRIES
    book.acknowledge(first)
    assert len(book.entries()) == 5


def test_numbers_that_cannot_be_read_count_as_nothing(backend: Backend) -> None:
    backend.usage.write("a", [Entry(ACME, 1, used(1))])
    client: Redis | None = getattr(backend, "client", None)
    if client is not None:
        client.hset(f"hedgerow:usage:{{1}}:{DAY}", "acme:b", "1 2 x")
    assert backend.usage.read([DAY]) == {ACME: used(1)}
