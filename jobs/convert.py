"""`sspsam convert SOURCE FOLDER`: a checkpoint of any kind to a folder with safetensors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.options import exit_code
from sspsam.errors import ConfigError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sspsam convert",
        description="Read a checkpoint (an authors' .pth, a folder, a URL) without running any code in "
        "it, check every tensor, and write config.json, model.safetensors and the tokenizer.",
    )
    parser.add_argument("source", metavar="SOURCE", help="file, folder, hf://org/repo/path or URL")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to write; made if absent")
    parser.add_argument("--sha256", help="hex digest that SOURCE's weights must have")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that stands in FOLDER")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 with a message that says what to change."""
    arguments = build_parser().parse_args(argv)
    return exit_code("convert", "s3,gcs,hub", lambda: _convert(arguments))


def _convert(arguments: argparse.Namespace) -> int:
    import torch

    from sspsam import SSPSAM
    from sspsam.checkpoint import WEIGHTS_FILE, file_sha256

    target: Path = arguments.folder / WEIGHTS_FILE
    if arguments.folder.exists() and not arguments.folder.is_dir():
        raise ConfigError(f"{arguments.folder} is a file; FOLDER is where the model's files go")
    if target.exists() and not arguments.overwrite:
        raise ConfigError(f"{target} exists; give another FOLDER or --overwrite")
    model = SSPSAM.from_pretrained(arguments.source, device="cpu", sha256=arguments.sha256)
    dtype = None if arguments.dtype == "float32" else getattr(torch, arguments.dtype)
    try:
        model.save_pretrained(arguments.folder, dtype)
    except OSError as error:
        raise ConfigError(f"{arguments.folder} cannot be written: {error}") from error
    config = model.config
    count = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{arguments.source}: CLIP {config.clip.image_size} px, {config.clip.vision_layers} blocks of "
        f"{config.clip.vision_width}; SAM {config.sam.image_size} px, {config.sam.encoder_depth} blocks "
        f"of {config.sam.encoder_width}; {config.ssp.prompts} prompts; "
        f"{count / 1e6:.1f} M parameters\n"
        f"wrote {arguments.folder}, {WEIGHTS_FILE} sha256 {file_sha256(target)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
