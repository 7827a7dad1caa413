"""Review verdicts: read into the table `verdicts`, written as new files, never into annotations.

OUTPUT/reviews/<UTC time>-<random>.parquet holds the verdicts of one request. Files are never changed,
so writers need no lock, and the newest verdict on a (shard, key, phrase) wins. The verdict `none`
withdraws an earlier one.
"""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, TypeAlias

import pyarrow as pa

from pipeline.dataset.annotation_dataset import read_reviews
from pipeline.dataset.dataset_schema import REVIEW_SCHEMA, VERDICTS
from pipeline.dataset.phrase_index import Index
from pipeline.dataset.store import Store
from sspsam.errors import DataError

MAX_NOTE = 2000
MAX_AT_ONCE = 1000

#: phrase_id of a verdict on the whole image.
WHOLE_IMAGE = -1


@dataclass(frozen=True)
class Verdict:
    """A reviewer's verdict on an image, or on one phrase of it (`phrase` None: the image)."""

    shard: str
    key: str
    phrase: str | None
    verdict: str  # accept, reject, flag; none withdraws an earlier one
    note: str | None = None
    reviewer: str | None = None
    seconds: float | None = None  # from the moment it was shown

    @classmethod
    def parse(cls, given: Any) -> Verdict:
        """From JSON. Raises DataError that names the field."""
        if not isinstance(given, Mapping):
            raise DataError("each verdict must be an object")
        for name in ("shard", "key", "verdict"):
            if not isinstance(given.get(name), str):
                raise DataError(f"verdict.{name} must be a string")
        for name in ("phrase", "note"):
            if not isinstance(given.get(name), str | None):
                raise DataError(f"verdict.{name} must be a string or null")
        if given["verdict"] not in (*VERDICTS, "none"):
            raise DataError(f"verdict.verdict must be one of {', '.join(VERDICTS)}, none")
        note = given.get("note") or None
        if note and len(note) > MAX_NOTE:
            raise DataError(f"verdict.note has more than {MAX_NOTE} characters")
        seconds = given.get("seconds")
        if seconds is not None and not (isinstance(seconds, int | float) and 0 <= seconds < 1e6):
            raise DataError("verdict.seconds must be a number of seconds")
        return cls(given["shard"], given["key"], given.get("phrase"), given["verdict"], note, None, seconds)


#: (shard, key, phrase) -> {reviewer: the newest verdict}
Votes: TypeAlias = "Mapping[tuple[str, str, str | None], Mapping[str, str]]"


def votes_of(reviews: pa.Table) -> Votes:
    """The newest verdict of each reviewer on each phrase; `none` takes one back."""
    found: dict[tuple[str, str, str | None], dict[str, str]] = defaultdict(dict)
    for row in reviews.sort_by("reviewed_at").to_pylist():
        place, reviewer = (row["shard"], row["key"], row["phrase"]), row["reviewer"] or ""
        if row["verdict"] == "none":
            found[place].pop(reviewer, None)
        else:
            found[place][reviewer] = row["verdict"]
    return {place: votes for place, votes in found.items() if votes}


def decided(votes: Mapping[str, str]) -> bool | None:
    """Whether most reviewers who said accept or reject accept; None if as many do as do not."""
    accepted, rejected = (list(votes.values()).count(verdict) for verdict in ("accept", "reject"))
    return None if accepted == rejected else accepted > rejected


class Reviews:
    """The verdicts of one dataset, in the index's table `verdicts`.

    verdicts(image_id, phrase_id, verdict, note, reviewed_at): the newest of each image and phrase,
    those taken back left out; phrase_id is WHOLE_IMAGE for the image itself.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._writing = threading.Lock()
        self._last = datetime.min.replace(tzinfo=timezone.utc)
        index.query(
            "create or replace table verdicts (image_id bigint, phrase_id integer, "
            "verdict varchar, note varchar, reviewed_at timestamptz)"
        )

    def load(self) -> None:
        """Read all files again. Raises DataError naming a file that is not of REVIEW_SCHEMA."""
        with self._writing:
            self._apply(read_reviews(self._index.dataset), replace=True)

    def write(self, verdicts: Iterable[Verdict]) -> str:
        """Store verdicts as one new file; they count at once. Returns the file's path.

        Raises DataError if an image or phrase is not in the dataset; then nothing is written.
        """
        given = list(verdicts)
        if not 0 < len(given) <= MAX_AT_ONCE:
            raise DataError(f"send 1 to {MAX_AT_ONCE} verdicts at once, not {len(given)}")
        for verdict in given:
            self._check(verdict)
        with self._writing:
            # Strictly rising, so that of two verdicts in one microsecond the later one wins.
            now = max(datetime.now(timezone.utc), self._last + timedelta(microseconds=1))
            times = [now + timedelta(microseconds=count) for count in range(len(given))]
            self._last = times[-1]
            rows = [
                {**vars(verdict), "reviewed_at": time} for verdict, time in zip(given, times, strict=True)
            ]
            table = pa.Table.from_pylist(rows, schema=REVIEW_SCHEMA)
            dataset = self._index.dataset
            name = f"reviews/{now:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:12]}.parquet"
            store = Store(dataset.url, dataset.storage_options, patience_seconds=15)  # a person waits
            store.put_table(name, table)
            self._apply(table, replace=False)
        return f"{dataset.root}/{name}"

    def of_images(self, images: list[int]) -> dict[int, dict[str | None, dict[str, Any]]]:
        """{image id: {phrase or None: {"verdict", "note", "reviewed_at" (ISO)}}}."""
        found: dict[int, dict[str | None, dict[str, Any]]] = {}
        if not images:
            return found
        rows = self._index.query(
            "select image_id, phrase, verdict, note, reviewed_at::varchar from verdicts "
            f"left join phrases using (phrase_id) where image_id in ({','.join(map(str, images))})"
        )
        for image, phrase, verdict, note, at in rows:
            entry = {"verdict": verdict, "note": note, "reviewed_at": at}
            found.setdefault(image, {})[phrase] = entry
        return found

    def counts(self) -> dict[str, int]:
        """{verdict: images and masks that have it}."""
        rows = self._index.query("select verdict, count(*) from verdicts group by 1")
        return {str(verdict): int(count) for verdict, count in rows}

    def _check(self, verdict: Verdict) -> None:
        where = f"{verdict.key!r} of shard {verdict.shard!r}"
        images = self._index.query(
            'select id from images where shard = ? and "key" = ?', [verdict.shard, verdict.key]
        )
        if not images:
            raise DataError(f"no image {where} in this dataset")
        if verdict.phrase is not None and not self._index.query(
            "select 1 from masks join phrases using (phrase_id) where phrase = ? "
            f"and image_id in ({','.join(str(image) for (image,) in images)}) limit 1",
            [verdict.phrase],
        ):
            raise DataError(f"no phrase {verdict.phrase!r} at image {where}")

    def _apply(self, table: pa.Table, *, replace: bool) -> None:
        """Merge verdicts, oldest first, into the table `verdicts`."""
        with self._index.cursor() as cursor:
            cursor.register("given", table.sort_by("reviewed_at"))
            cursor.execute("begin")
            cursor.execute(
                f"""create or replace temp table latest as
                select i.id as image_id, coalesce(p.phrase_id, {WHOLE_IMAGE}) as phrase_id,
                       arg_max(struct_pack(v := verdict, n := note), reviewed_at) as final,
                       max(reviewed_at) as reviewed_at
                from given g join images i on i.shard = g.shard and i."key" = g."key"
                left join phrases p on p.phrase = g.phrase
                where g.phrase is null or p.phrase_id is not null
                group by 1, 2"""
            )
            if replace:
                cursor.execute("delete from verdicts")
            cursor.execute(
                "delete from verdicts where (image_id, phrase_id) in "
                "(select (image_id, phrase_id) from latest)"
            )
            cursor.execute(
                "insert into verdicts select image_id, phrase_id, final.v, final.n, reviewed_at "
                "from latest where list_contains(?, final.v)",
                [list(VERDICTS)],
            )
            cursor.execute("commit")
