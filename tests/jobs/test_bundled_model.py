"""The bundled model, evaluated by the command on its held-out scenes, has the numbers of its card."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

CARD = Path(str(files("sspsam"))) / "weights" / "tiny"


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_numbers_of_the_card(tmp_path: Path):
    stated = json.loads((CARD / "metrics.json").read_text())
    command = [sys.executable, "-m", "jobs.evaluate", stated["model"], stated["dataset"]]
    command += ["--split", stated["split"], "--json", "-o", str(tmp_path / "out"), "--resamples", "0"]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "local"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)["protocols"]["standard"]
    for subset, metrics in stated["protocols"]["standard"].items():
        for name, score in metrics.items():
            if score["value"] is None:
                assert found[subset][name]["value"] is None
            else:
                # Other processors round otherwise, and a pixel on an edge may fall to the other side.
                assert found[subset][name]["value"] == pytest.approx(score["value"], abs=0.005)
    said = (CARD / "MODEL_CARD.md").read_text()
    value = f"{stated['protocols']['standard']['all']['mIoU']['value']:.3f}"
    assert re.search(rf"\b{re.escape(value)}\b", said), f"the card does not say mIoU {value}"
