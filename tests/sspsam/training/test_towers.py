"""Published towers into a new model: transformers' own CLIP file and SAM's own names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from sspsam import SSPSAM, SSPSAMConfig
from sspsam.errors import ArchitectureError, CheckpointError
from sspsam.training.towers import load_towers


@pytest.fixture
def files(micro_config: SSPSAMConfig, tmp_path: Path) -> tuple[Path, Path]:
    """A CLIP of the small layout as transformers saves it, and another model's SAM as a .pth."""
    ours = micro_config.clip
    common = {"projection_dim": ours.embed_dim}
    text = {"vocab_size": ours.vocab_size, "hidden_size": ours.text_width, **common}
    text |= {"intermediate_size": 4 * ours.text_width, "num_hidden_layers": ours.text_layers}
    text |= {"num_attention_heads": ours.text_heads, "max_position_embeddings": ours.context_length}
    vision = {"hidden_size": ours.vision_width, "intermediate_size": 4 * ours.vision_width, **common}
    vision |= {"num_hidden_layers": ours.vision_layers, "num_attention_heads": ours.vision_heads}
    vision |= {"image_size": ours.image_size, "patch_size": ours.patch_size}
    torch.manual_seed(7)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, **common))
    clip.save_pretrained(tmp_path / "clip")
    sam = SSPSAM(micro_config).sam.state_dict()
    torch.save(sam, tmp_path / "sam.pth")
    return tmp_path / "clip" / "model.safetensors", tmp_path / "sam.pth"


def test_towers_are_taken_over(micro_config: SSPSAMConfig, files: tuple[Path, Path]):
    from safetensors.torch import load_file

    model = SSPSAM(micro_config)
    head = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("ssp_encoder.")}
    load_towers(model, *map(str, files))
    state = model.state_dict()
    stored = load_file(files[0])
    weight = "encoder.layers.1.self_attn.v_proj.weight"
    assert torch.equal(state[f"clip.vision.{weight}"], stored[f"vision_model.{weight}"])
    assert torch.equal(state["clip.text_projection.weight"], stored["text_projection.weight"])
    for name, tensor in torch.load(files[1], weights_only=True).items():
        assert torch.equal(state[f"sam.{name}"], tensor)
    assert all(torch.equal(state[name], tensor) for name, tensor in head.items())


def test_other_files_are_refused(micro_config: SSPSAMConfig, files: tuple[Path, Path], tmp_path: Path):
    clip, sam = files
    with pytest.raises(ArchitectureError, match=r"missing clip\.logit_scale"):
        load_towers(SSPSAM(micro_config), str(sam), str(sam))
    with pytest.raises(CheckpointError, match="is no file"):
        load_towers(SSPSAM(micro_config), str(tmp_path / "none"), str(sam))
    wide = {"image_encoder.pos_embed": torch.zeros(1, 2, 2, 5)}
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(ArchitectureError, match=r"misshapen sam\.image_encoder\.pos_embed"):
        load_towers(SSPSAM(micro_config), str(clip), str(tmp_path / "wide.safetensors"))
    torch.save({"model": {"a": 1}}, tmp_path / "nested.pth")
    with pytest.raises(CheckpointError, match="no plain state dict"):
        load_towers(SSPSAM(micro_config), str(clip), str(tmp_path / "nested.pth"))
