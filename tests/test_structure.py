"""Imports run one way (jobs -> pipeline -> sspsam), and the exported surface is what it says."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import sspsam
from docs import make_architecture

ROOT = Path(__file__).parents[1]


def test_sspsam_knows_no_ray_and_no_pipeline() -> None:
    """In a fresh interpreter where both are forbidden, every module of sspsam imports."""
    code = """
import importlib, pkgutil, sys
for name in ("ray", "pipeline", "jobs"):
    sys.modules[name] = None
import sspsam
for module in pkgutil.walk_packages(sspsam.__path__, "sspsam."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        # torch for CUDA brings Triton; torch for a CPU does not.
        assert (module.name, error.name) == ("sspsam.modeling.triton_attention", "triton"), error
assert "torchvision" not in sys.modules
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_readers_of_shards_load_no_torch() -> None:
    code = "import sys, sspsam.errors, sspsam.schema; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_import_contracts_are_kept() -> None:
    """Layers, independent verbs, no circles: the contracts of pyproject.toml."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]


def test_exported_names_exist_and_are_documented() -> None:
    assert sorted(sspsam.__all__) == sorted(sspsam._HOME_OF)
    for name in sspsam.__all__:
        assert getattr(sspsam, name).__doc__, f"sspsam.{name} has no docstring"


def test_architecture_page_is_fresh() -> None:
    assert make_architecture.PAGE.read_text(encoding="utf-8") == make_architecture.page(), "stale: make docs"


def test_no_two_files_share_a_name() -> None:
    """A file name says what is in it without its folder, as an editor's tabs show it."""
    files = [p for top in make_architecture.PACKAGES for p in (ROOT / top).rglob("*.py")]
    names = Counter(path.name for path in files if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_every_command_has_its_job() -> None:
    from jobs.cli import COMMANDS, main

    for name, (module, _) in COMMANDS.items():
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), name
    assert main(["no-such-command"]) == 2
    assert main([]) == 0
