"""`sspsam convert SOURCE FOLDER`: a checkpoint of any kind to a folder with safetensors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jobs.options import run
from sspsam.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 with a message that says what to change."""
    return run(convert, argv, "s3,gcs,hub")


def convert(
    source: str,
    folder: Path,
    /,
    *,
    sha256: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    overwrite: bool = False,
) -> int:
    """Read a checkpoint without running any code in it, check every tensor, and write it as safetensors.

    Args:
        source: an authors' .pth, a folder, hf://org/repo/path or any URL
        folder: where config.json, model.safetensors and the tokenizer go; made if absent
        sha256: hex digest that SOURCE's weights must have
        dtype: of the stored tensors
        overwrite: replace the model in FOLDER
    """
    import torch

    from sspsam import SSPSAM
    from sspsam.checkpoint import WEIGHTS_FILE, file_sha256

    target = folder / WEIGHTS_FILE
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; FOLDER is where the model's files go")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} exists; give another FOLDER or --overwrite")
    model = SSPSAM.from_pretrained(source, device="cpu", sha256=sha256)
    try:
        model.save_pretrained(folder, None if dtype == "float32" else getattr(torch, dtype))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error}") from error
    config = model.config
    count = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{source}: CLIP {config.clip.image_size} px, {config.clip.vision_layers} blocks of "
        f"{config.clip.vision_width}; SAM {config.sam.image_size} px, {config.sam.encoder_depth} blocks "
        f"of {config.sam.encoder_width}; {config.ssp.prompts} prompts; "
        f"{count / 1e6:.1f} M parameters\n"
        f"wrote {folder}, {WEIGHTS_FILE} sha256 {file_sha256(target)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
