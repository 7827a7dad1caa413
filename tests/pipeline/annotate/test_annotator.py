"""`pipeline.Annotator`: the replica for a Ray dataset of the user's own."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import pipeline
from tests.pipeline.annotate.inputs import picture


@pytest.mark.usefixtures("local_ray")
def test_annotator_in_a_dataset_of_the_users_own(micro_model: Path) -> None:
    import ray.data

    table = pa.table(
        {
            "id": [1, 2, 3],
            "image": [picture(1), b"no image", picture(2)],
            "phrases": [["dog", "red ball"], ["dog"], []],
        }
    )
    done = ray.data.from_arrow(table).map_batches(
        pipeline.Annotator,
        fn_constructor_kwargs={"model": str(micro_model), "device": "cpu"},
        compute=ray.data.ActorPoolStrategy(size=1),
        batch_size=3,
        batch_format="pyarrow",
    )
    found = sorted(done.take_all(), key=lambda row: row["id"])
    assert [len(row["annotations"]) for row in found] == [2, 0, 0]
    assert [row["width"] for row in found] == [96, None, 96]
    assert found[1]["error"]["kind"] == "not_an_image"
    assert found[0]["annotations"][1]["phrase"] == "red ball"
