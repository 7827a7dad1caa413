"""How samples that kill their process are found, without any process."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.annotate.chunk_receipt import Receipt
from pipeline.annotate.ledger import Ledger, chunk_key
from pipeline.annotate.span_plan import SpanPlan, plan_spans
from pipeline.annotate.works import Works


def written(shard: str, chunk: int = 0, samples: int = 8, seconds: float = 1.0) -> Receipt:
    notes = {"busy_seconds": seconds}
    return Receipt(shard, chunk, False, samples, samples, 0, 0, samples, samples, {}, notes=notes)


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


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=1, max_size=40),
    st.sets(st.integers(0, 400), max_size=3),
    st.integers(1, 64),
)
def test_small_works_are_entered_together_and_only_what_kills_is_blamed(
    chunks: list[tuple[int, bool]], killers: set[int], room: int
) -> None:
    """Chunks (samples, whether its end is told at once) that are begun by one process after the other."""
    ends = list(itertools.accumulate(size for size, _ in chunks))
    killers = {killer for killer in killers if killer < ends[-1]}
    book = Ledger()
    done: dict[int, SpanPlan] = {}
    deaths = messages = 0
    while True:
        left = [number for number in range(len(chunks)) if number not in done]
        works = Works(book, [(f"{number}", chunks[number][0], chunks[number][0]) for number in left], room)
        begun: dict[int, SpanPlan] = {}
        died = False
        for number in left:
            messages += not works.ahead
            plan = begun[number] = works.begin()
            first = ends[number] - chunks[number][0]
            for low, high in plan.run:
                book.advance(f"{number}", (low, high))
                if died := bool(killers & set(range(first + low, first + high))):
                    break
            if died:
                break
            if chunks[number][1]:
                works.end()
        if not died:
            works.end()
            done |= begun
            break
        # Of what the process has done that counts which the ledger was told of.
        deaths += 1
        told = [n for n in begun if str(n) not in {row["key"] for row in book.under_way()}]
        done |= {n: begun[n] for n in told}
    for number, (size, _) in enumerate(chunks):
        first = ends[number] - size
        assert done[number].quarantine == sorted(k - first for k in killers if first <= k < ends[number])
    assert book.under_way() == []
    assert deaths <= (2 + 8 * len(killers)) * bool(killers)
    if not killers and not any(told for _, told in chunks):
        assert messages <= 2 * (ends[-1] // room + 1) + len(chunks) // 32


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
    book.begin("annotate 00000 0", 4, "a")
    assert book.started("b") == 4  # begun is not finished
    book.begin("read 00000 after 0 chunks", 1, "c")
    book.end("read 00000 after 0 chunks")
    assert book.started("b") == 5  # what a reader finished is not a replica's
    book.end("annotate 00000 0")
    assert book.started("b") == 1


def test_a_chunk_beside_one_that_kills_is_repeated_and_cleared() -> None:
    book = Ledger()
    row = [("killer", 0), ("bystander", 0), ("before", 0)]
    killer, bystander, _ = (chunk_key(*chunk) for chunk in row)
    assert book.standing(row) == ["new"] * 3
    book.written(written("before"))
    book.begin(killer, 8, "a")
    book.begin(bystander, 8, "a")  # the process dies here
    # Both run alone from now on; what was written of the row is not computed again.
    assert book.standing(row) == ["suspect", "suspect", "written"]
    assert book.begin(bystander, 8, "b").run == [(0, 8)]
    book.end(bystander)
    assert book.standing(row) == ["suspect", "new", "written"]
    assert book.begin(killer, 8, "b").run == [(0, 8)]
    assert book.begin(killer, 8, "c").run == [(n, n + 1) for n in range(8)]
    assert book.deaths() == 2  # processes, not chunks
    assert [receipt.shard for receipt in book.take()] == ["before"]
    assert book.take() == []
    book.end_row(row)
    assert book.standing([row[2]]) == ["new"]  # whoever asks for it now is to compute it


@settings(deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=300), st.floats(1e-4, 10.0), st.integers(1, 4))
def test_rows_grow_with_what_is_done_and_readers_are_not_far_ahead(
    chunks: list[int], seconds: float, replicas: int
) -> None:
    """A reader and replicas that take `seconds` an image. Run again, the reader gets the same rows."""
    book = Ledger()
    book.begin_chain(64, replicas)
    rooms: list[int] = []
    read = done = 0
    while read < sum(chunks):
        room = book.room("run", len(rooms), read, wait=True)
        if not room:  # far ahead: the replicas go on
            assert read - done >= 8 * 64 * replicas
            count = chunks[done % len(chunks)]
            book.written(written("shard", done, count, count * seconds))
            done += count
            continue
        assert room == 64 or room <= min(5.0 / seconds, done / (16 * replicas))
        rooms.append(room)
        read += room
    again = [book.room("run", row, 0, wait=True) for row in range(len(rooms))]
    assert again == rooms
    assert book.room("run", len(rooms), 10**9, wait=True) == 0
    assert book.room("run", len(rooms), 10**9, wait=False) >= 64
