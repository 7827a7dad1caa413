"""The command line as a whole: every command, every flag, near misses, completion."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from jobs.cli import COMMANDS, app, main
from pipeline.annotate.annotate_config import option_fields
from pipeline.curate.curate_config import CurateConfig, CurateResources
from pipeline.export.export_config import ExportConfig
from pipeline.import_.import_config import ImportConfig
from pipeline.report.report_config import ReportConfig
from pipeline.view.view_config import ViewConfig
from sspsam.training.train_config import TrainConfig

#: command -> (a flag misspelt, what is meant)
NEAR_MISSES = {
    "segment": ("--modle", "--model"),
    "annotate": ("--chunksize", "--chunk-size"),
    "compact": ("--storage-optoins", "--storage-options"),
    "report": ("--tile", "--tiles"),
    "view": ("--prot", "--port"),
    "stats": ("--compair", "--compare"),
    "agree": ("--memroy-mb", "--memory-mb"),
    "calibrate": ("--verdict", "--verdicts"),
    "audit": ("--budgte", "--budget"),
    "curate": ("--merge-iuo", "--merge-iou"),
    "export": ("--categorys", "--categories"),
    "import": ("--phrase-feild", "--phrase-field"),
    "train": ("--recpie", "--recipe"),
    "evaluate": ("--protocoll", "--protocol"),
    "models": ("--jsno", "--json"),
    "convert": ("--dtpye", "--dtype"),
}
#: Fields whose flags have names of their own.
RENAMED = {"allowed_hosts": "allowed-host", "index_path": "index"}


def fields(*configs: type) -> list[str]:
    return [one.name for config in configs for one in dataclasses.fields(config)]


def shown(capsys: pytest.CaptureFixture[str], command: str) -> str:
    assert main([command, "--help"]) == 0
    return capsys.readouterr().out


def test_a_near_miss_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(NEAR_MISSES) == set(COMMANDS)
    for command, (misspelt, meant) in NEAR_MISSES.items():
        required = ["--format", "coco"] if command in ("export", "import") else []
        assert main([command, "in", "out", *required, misspelt, "3"]) == 2, command
        said = capsys.readouterr().err
        assert said.startswith(f"sspsam {command}: ")
        assert said.count("\n") == 1
        assert f"{misspelt}. Did you mean {meant}?" in said
    assert main(["anotate", "in", "out"]) == 2
    assert 'Did you mean "annotate"?' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("annotate", [name for name in option_fields() if name not in ("input", "output")]),
        ("curate", fields(CurateConfig, CurateResources)),
        ("export", fields(ExportConfig)),
        ("import", fields(ImportConfig)),
        ("report", fields(ReportConfig)),
        ("view", fields(ViewConfig)),
        ("train", fields(TrainConfig)),
    ],
)
def test_help_names_every_setting(
    command: str, names: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = shown(capsys, command)
    for name in names:
        flag = RENAMED.get(name, name.replace("_", "-"))
        assert f"--{flag} " in text, flag
    assert "--help" not in text  # cyclopts gives it a panel of its own, above the arguments


def test_wrong_values_are_one_line_with_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["annotate", "in", "out", "--chunk-size", "many"], "--chunk-size"),
        (["annotate", "in", "out", "--format", "zip"], "--format"),
        (["annotate", "in", "out", "--storage-options", "{"], "--storage-options"),
        (["view", "out", "--storage-options", "[1]"], "--storage-options must be a JSON object"),
        (["curate", "in", "out", "--reviews", "some"], "--reviews"),
        (["curate", "in"], "DEST"),
        (["report", "in", "out"], "out"),
        (["train", "out", "--recipe", "nosuch"], "--recipe 'nosuch': there are"),
    ):
        assert main(arguments) == 2, arguments
        said = capsys.readouterr().err
        assert said.startswith(f"sspsam {arguments[0]}: ")
        assert message in said
        assert said.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_flags(shell: str) -> None:
    script = app().generate_completion(shell=shell)
    for word in ("annotate", "evaluate", "chunk-size", "merge-iou"):
        assert word in script


def test_help_needs_neither_torch_nor_ray() -> None:
    code = """
import sys
from jobs.cli import main
for arguments in (["--help"], ["segment", "--help"], ["annotate", "--help"], ["curate", "--help"]):
    main(arguments)
sys.exit("torch" in sys.modules or "ray" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
