"""`sspsam segment` and `sspsam convert` as people run them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from jobs import convert, segment
from sspsam.inference.masks import Mask, decode_rle


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8))
    path = tmp_path / "photo.jpg"
    rough.resize((160, 120), Image.Resampling.BICUBIC).save(path)
    return path


def test_the_command_itself(photo: Path, tmp_path: Path) -> None:
    """From a shell, in another folder, with random weights: a table, two pictures, a loud warning."""
    command = [sys.executable, "-m", "jobs.cli", "segment", str(photo), "a red bird", "the sky"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    done = subprocess.run(
        [*command, "--model", "random:tiny", "--device", "cpu", "--explain"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "RANDOM WEIGHTS" in done.stderr
    assert "a red bird" in done.stdout
    assert "score" in done.stdout
    assert "wrote photo.overlay.png" in done.stdout
    overlay = Image.open(tmp_path / "photo.overlay.png")
    assert overlay.size == (640, 480)  # small images are enlarged
    assert Image.open(tmp_path / "photo.explain.png").width > 900


def test_json(photo: Path, tiny_model_dir: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", str(tiny_model_dir), "--device", "cpu", "--json"]
    assert segment.main([str(photo), "a red bird", "🐶", *arguments]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["width"], answer["height"]) == (160, 120)
    assert len(answer["model"]["sha256"]) == 64
    assert [one["phrase"] for one in answer["annotations"]] == ["a red bird", "🐶"]
    for one in answer["annotations"]:
        assert decode_rle(one["segmentation"]).sum() == one["area"]
        assert -1 <= one["clip_score"] <= 1
    assert not list(tmp_path.glob("*.png"))
    # Standard input and URLs are images too, and -o writes a picture beside the JSON.
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(photo.read_bytes())))
    for source in ("-", photo.as_uri()):
        assert segment.main([source, "a red bird", "🐶", "-o", "x.png", *arguments]) == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)["annotations"] == answer["annotations"]
        assert "wrote x.png" in printed.err
        assert "--font" in printed.err  # the emoji's label is an empty box
    target = answer["annotations"][0]["target_pixels"]
    more = ["--min-target-pixels", str(target + 1)]
    assert segment.main([str(photo), "a red bird", "🐶", *arguments, *more]) == 0
    again = json.loads(capsys.readouterr().out)["annotations"][0]
    assert again["has_target"] is False
    assert again["segmentation"] == answer["annotations"][0]["segmentation"]


def test_80_columns_cut_no_number_of_a_large_image() -> None:
    box = (54321.0, 43210.0, 32109.0, 21098.0)
    rle = {"size": [65535, 65535], "counts": ""}
    mask = Mask("a supercalifragilistic kite", rle, 677431682, box, box, True, 9, *[-0.25] * 5, False)
    printed = io.StringIO()
    Console(file=printed, width=80).print(segment._table([mask]))
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert {"677431682", "54321", "43210", "32109", "21098"} <= set(printed.getvalue().split())
    assert printed.getvalue().split().count("-0.25") == 5


def test_segment_says_what_is_wrong(photo: Path, tiny_model_dir: Path, tmp_path, capsys) -> None:
    model = ["--model", str(tiny_model_dir), "--device", "cpu"]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(photo.read_bytes()[:900])
    (tmp_path / "text.jpg").write_text("hello")
    cases = [
        ([str(tmp_path / "absent.jpg"), "a"], "absent.jpg: No such file"),
        ([str(tmp_path / "text.jpg"), "a"], "text.jpg: 5 bytes starting b'hello'"),
        ([str(broken), "a"], "broken.jpg"),
        ([str(photo), "?!"], "nothing to look for"),
        ([str(photo), "a", "--model", "nosuch"], "no model 'nosuch'"),
        ([str(photo), "a", *model, "--sha256", "0" * 64], "sha256"),
        ([str(photo), "a", *model, "-o", "x.docx"], "-o x.docx"),
        ([str(photo), "a", *model, "-o", "/nosuch/x.png"], "/nosuch does not exist"),
        ([str(photo), "a", *model, "--max-pixels", "100"], "the limit is 100"),
        ([str(photo), "a", *model, "--device", "nosuch"], "no device 'nosuch'"),
        ([str(tmp_path), "a"], "is a folder: name one image"),
        ([str(photo), "a", *model, "--font", str(photo)], "--font"),
    ]
    for arguments, message in cases:
        assert segment.main(arguments) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("sspsam segment: ")
        assert message in printed.err
        assert len(printed.err.strip().splitlines()) == 1
        assert printed.out == ""


def test_convert(photo: Path, tiny_model_dir: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "converted"
    assert convert.main([str(tiny_model_dir), str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "M parameters" in printed
    digest = printed.split("sha256 ")[1].strip()
    answers = []
    for source in (tiny_model_dir, folder):
        arguments = ["--model", str(source), "--device", "cpu", "--json"]
        assert segment.main([str(photo), "a red bird", *arguments]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0]["annotations"] == answers[1]["annotations"]
    assert answers[1]["model"]["sha256"] == digest
    half = tmp_path / "half"
    assert convert.main([str(folder), str(half), "--dtype", "bfloat16", "--sha256", digest]) == 0
    sizes = [(path / "model.safetensors").stat().st_size for path in (half, folder)]
    assert sizes[0] < 0.6 * sizes[1]
    capsys.readouterr()
    for arguments, message in [
        ([str(tiny_model_dir), str(folder)], "--overwrite"),
        ([str(tmp_path / "absent.pth"), str(tmp_path / "x")], "no model"),
        ([str(folder), str(tmp_path / "x"), "--sha256", "1" * 64], "sha256"),
        ([str(photo), str(tmp_path / "x")], "photo.jpg"),
        ([str(folder), str(photo / "under")], "cannot be written"),
        ([str(folder), str(photo)], "photo.jpg is a file"),
    ]:
        assert convert.main(arguments) == 2
        assert message in capsys.readouterr().err
    assert convert.main([str(tiny_model_dir), str(folder), "--overwrite"]) == 0
