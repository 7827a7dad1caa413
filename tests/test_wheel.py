"""The wheel: everything of the packages is in it, and it works from where nothing else of the checkout is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
PACKAGES = ("sspsam", "pipeline", "jobs")


def test_a_wheel_holds_weights_assets_and_pages_and_works(tmp_path: Path) -> None:
    source, installed = tmp_path / "source", tmp_path / "installed"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    there = {
        path.relative_to(source).as_posix()
        for name in PACKAGES
        for path in (source / name).rglob("*")
        if path.is_file()
    }
    offline = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir"]
    run(*offline, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source))
    (wheel,) = tmp_path.glob("*.whl")
    held = zipfile.ZipFile(wheel).namelist()
    assert {name for name in held if ".dist-info/" not in name} == there
    assert {"LICENSE", "NOTICE"} <= {Path(name).name for name in held}
    for name in ("weights/tiny/model.safetensors", "assets/bpe_clip.txt.gz", "py.typed"):
        assert f"sspsam/{name}" in there

    run(*offline, "install", "-q", "--no-deps", "--no-index", "--target", str(installed), str(wheel))
    Image.new("RGB", (80, 60), "white").save(tmp_path / "photo.png")
    done = run(
        *(sys.executable, "-m", "jobs.cli", "segment", "photo.png", "the dog", "--device", "cpu"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
    )
    assert "wrote photo.overlay.png" in done.stdout
    assert "mean nothing on photographs" in done.stderr
    code = "import jobs, pipeline, sspsam; print(jobs.__file__, pipeline.__file__, sspsam.__file__)"
    places = run(sys.executable, "-c", code, cwd=tmp_path, env={"PYTHONPATH": str(installed)}).stdout.split()
    assert all(place.startswith(str(installed)) for place in places)


def run(
    *command: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done
