"""The pages and manifests that people copy from say what the code does."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from jobs.annotate import parse
from pipeline.annotate import rows
from pipeline.annotate.annotate_config import AnnotateConfig
from pipeline.annotate.prometheus import _instruments
from sspsam import errors
from sspsam.schema import (
    ADDED_SIGNALS,
    ANNOTATION_SCHEMA,
    ANNOTATION_TYPE,
    VERIFICATION_SIGNALS,
    annotation_schema,
)

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def table_after(text: str, header: str) -> list[list[str]]:
    """Rows of the Markdown table whose header line starts with `header`."""
    lines = text[text.index(header) :].splitlines()[2:]
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_schema_page_is_the_schema() -> None:
    text = (DOCS / "schema.md").read_text()

    def described(fields: list[pa.Field]) -> list[tuple[str, str]]:
        short = {str(ANNOTATION_SCHEMA.field("annotations").type): "list<struct>"}
        types = [(f.name, short.get(str(f.type), str(f.type))) for f in fields]
        plain = [(name, re.sub(r"(element|item): |\[(\d)\]", r"\2", kind)) for name, kind in types]
        return [(name, re.sub(r"<(int32|float)>(\d)", r"<\1, \2>", kind)) for name, kind in plain]

    added = list(annotation_schema(ADDED_SIGNALS).field("annotations").type.value_type)[
        ANNOTATION_TYPE.num_fields :
    ]
    for header, fields in (
        ("| column |", list(ANNOTATION_SCHEMA)),
        ("| field |", list(ANNOTATION_TYPE)),
        ("| signal |", added[: len(VERIFICATION_SIGNALS["full"])]),
    ):
        listed = [(row[0].strip("`"), row[1]) for row in table_after(text, header)]
        assert listed == described(fields)
    documented = set(re.findall(r"`(\w+)`", text[text.index("## Kinds") : text.index("## Metadata")]))
    of_images = {
        e.kind for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.ImageError)
    }
    ours = {
        rows.KILLED_WORKER,
        rows.PHRASE_SOURCE,
        rows.UNEXPECTED,
        rows.EMPTY_CAPTION,
        rows.NO_PHRASE_FOUND,
        errors.OutOfMemoryError.kind,
    }
    assert of_images | ours <= documented


def commands(text: str) -> list[list[str]]:
    """Arguments of every annotate command in a page, with what continues a line joined."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r"(?:jobs\.annotate|sspsam annotate) ([^`\n#]+)", joined)
    return [shlex.split(line.split(":")[0] if line.endswith(":") else line) for line in found]


def test_commands_of_the_pages_are_understood() -> None:
    text = (DOCS / "operations.md").read_text()
    complete = [c for c in commands(text) if len([a for a in c if not a.startswith("-")]) >= 2]
    assert len(complete) >= 4
    for arguments in complete:
        parse(arguments)
    example = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert example is not None
    AnnotateConfig.from_options(yaml.safe_load(example[1]))


def test_cluster_file_is_what_the_launcher_takes() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    text = (ROOT / "cluster.yaml").read_text()
    cluster = yaml.safe_load(text)
    util.validate_config(util.fillout_defaults(dict(cluster)))
    types = cluster["available_node_types"]
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    assert types["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert types["gpu"]["max_workers"] == cluster["max_workers"]
    pinned = re.search(r"^torch==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert pinned[0] in text
    assert pinned[0] in (DOCS / "rayjob.yaml").read_text()
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"


def test_ray_job_runs_the_job() -> None:
    job: dict[str, Any] = yaml.safe_load((DOCS / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    program, module, *arguments = (
        shlex.split(job["spec"]["entrypoint"])[0:2] + shlex.split(job["spec"]["entrypoint"])[2:]
    )
    assert (program, module, arguments[0]) == ("python", "-m", "jobs.annotate")
    config = parse(arguments[1:])
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert config.compute.replica_range() == (1, group["maxReplicas"])


def test_dashboard_draws_every_metric() -> None:
    text = (DOCS / "grafana-dashboard.json").read_text()
    json.loads(text)
    counters = {name for name in _instruments() if name != "occupancy"}
    named = {f"sspsam_{'stage_seconds' if name == 'seconds' else name}_total" for name in counters}
    assert set(re.findall(r"ray_(sspsam_\w+)", text)) == named | {"sspsam_batch_occupancy"}
