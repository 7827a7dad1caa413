"""How samples that kill their process are found, without any process."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.annotate.ledger import Ledger, plan_spans


def work_until_done(book: Ledger, size: int, killers: set[int]) -> tuple[list[int], list[int], int]:
    """Play a chunk with a ledger: (samples computed, samples quarantined, deaths)."""
    for deaths in range(10_000):
        plan = book.begin("chunk", size, f"worker {deaths}")
        computed: list[int] = []
        for number, (low, high) in enumerate(plan.run):
            if number:
                book.advance("chunk", (low, high))
            if killers & set(range(low, high)):
                break  # the process dies here
            computed += range(low, high)
        else:
            book.end("chunk")
            return computed, plan.quarantine, deaths
    raise AssertionError("does not end")


@settings(deadline=None)  # tests do not time
@given(st.integers(0, 200), st.sets(st.integers(0, 199), max_size=6))
def test_finds_every_killer_and_computes_the_rest_once(size: int, killers: set[int]) -> None:
    killers = {killer for killer in killers if killer < size}
    book = Ledger()
    computed, quarantined, deaths = work_until_done(book, size, killers)
    assert quarantined == sorted(killers)
    assert sorted([*computed, *quarantined]) == list(range(size))
    assert deaths <= (2 + 8 * len(killers)) * bool(killers)
    assert book.deaths() == deaths
    assert book.under_way() == []


def test_a_chunk_is_repeated_whole_before_it_is_split() -> None:
    assert plan_spans(64, {}).run == [(0, 64)]
    assert plan_spans(64, {(0, 64): 1}).run == [(0, 64)]
    assert plan_spans(64, {(0, 64): 2}).run == [(n, n + 8) for n in range(0, 64, 8)]
    assert plan_spans(1, {(0, 1): 2}).quarantine == [0]
    assert plan_spans(0, {}).run == []


def test_what_was_ended_on_purpose_is_no_death() -> None:
    book = Ledger()
    book.started("a")
    book.begin("annotate 00000 0", 8, "a")
    book.begin("annotate 00000 1", 8, "b")
    book.begin("annotate 00000 1", 8, "c")  # b died
    book.forget_open()
    assert book.under_way() == []
    assert book.begin("annotate 00000 0", 8, "d").run == [(0, 8)]
    assert book.begin("annotate 00000 1", 8, "d").run == [(0, 8)]
    assert book.deaths() == 1
    assert book.begin("annotate 00000 1", 8, "e").run == [(n, n + 1) for n in range(8)]  # its second


def test_counts_starts_that_finish_nothing() -> None:
    book = Ledger()
    assert [book.started("a"), book.started("b"), book.started("a")] == [1, 2, 3]
    assert {row["key"] for row in book.under_way()} == {"load the model (a)", "load the model (b)"}
    book.begin("chunk", 4, "a")
    assert book.started("b") == 4  # begun is not finished
    book.end("chunk")
    assert book.started("b") == 1


def test_a_chunk_beside_one_that_kills_is_repeated_and_cleared() -> None:
    book = Ledger()
    assert not book.suspect("killer")
    book.begin("killer", 8, "a")
    book.begin("bystander", 8, "a")  # the process dies here
    assert book.suspect("killer")  # so both run alone from now on
    assert book.suspect("bystander")
    assert book.begin("bystander", 8, "b").run == [(0, 8)]
    book.end("bystander")
    assert not book.suspect("bystander")
    assert book.begin("killer", 8, "b").run == [(0, 8)]
    assert book.begin("killer", 8, "c").run == [(n, n + 1) for n in range(8)]
    assert book.deaths() == 2  # processes, not chunks
