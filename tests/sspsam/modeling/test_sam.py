"""SAM against the stock package, live: the same weights, ours and theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sspsam import SAMConfig, SSPSAMConfig
from sspsam.modeling import relative_attention
from sspsam.modeling import sam as ours
from sspsam.modeling.segment_anything import ImageEncoderViT

# 19 patches a side: no multiple of the window, so that padding takes part.
SMALL = SAMConfig(64, 3, 2, (1,), image_size=304, window=7, embed_dim=32, decoder_mlp=64, iou_hidden=32)


@pytest.fixture(scope="module")
def sam() -> ours.SAM:
    torch.manual_seed(1)
    module = ours.SAM(SMALL).eval()
    for block in module.image_encoder.blocks:
        torch.nn.init.normal_(block.attn.rel_pos_h)
        torch.nn.init.normal_(block.attn.rel_pos_w)
    return module


@pytest.mark.parametrize("attend", [relative_attention.attend_augmented, relative_attention.attend_biased])
@torch.no_grad()
def test_image_encoder_equals_stock(
    sam: ours.SAM, attend: relative_attention.RelativeAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "relative_attention_for", lambda device, tokens: attend)
    monkeypatch.setattr(relative_attention, "_BIAS_BLOCK", 100 * 361)  # several blocks of queries
    pixels = torch.randn(2, 3, 304, 304)
    stock = ImageEncoderViT.forward(sam.image_encoder, pixels)
    torch.testing.assert_close(sam.image_encoder(pixels), stock, atol=1e-4, rtol=0)


@torch.no_grad()
def test_decoder_equals_stock_image_by_image(sam: ours.SAM) -> None:
    embedding, prompts = torch.randn(3, 32, 19, 19), torch.randn(5, 6, 32)
    image_index = torch.tensor([2, 0, 0, 1, 2])
    logits, predicted_iou = sam.decode(embedding, prompts, image_index)
    for i, image in enumerate(image_index):
        masks, iou = sam.mask_decoder(
            image_embeddings=embedding[image : image + 1],
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=prompts[i : i + 1],
            dense_prompt_embeddings=sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1),
            multimask_output=False,
        )
        torch.testing.assert_close(logits[i], masks[0, 0], atol=1e-4, rtol=0)
        torch.testing.assert_close(predicted_iou[i], iou[0, 0], atol=1e-5, rtol=0)


def test_presets_have_the_published_shapes() -> None:
    """The tensors of both published layouts, by name and shape, without allocating them."""
    import json

    from sspsam import SSPSAM
    from sspsam.authors_layout import infer_config, to_ours
    from tests.sspsam.modeling.parity import FOLDER

    for layout, preset in (("b16", "b16-224"), ("l14", "l14-336")):
        spellings = json.loads((FOLDER / f"keys_{layout}.json").read_text())
        config = SSPSAMConfig.preset(preset)
        with torch.device("meta"):
            own = {k: v.shape for k, v in SSPSAM(config).state_dict().items()}
        for keys in spellings.values():
            state = {name: torch.empty(shape, device="meta") for name, shape in keys.items()}
            assert infer_config(state) == config
            assert {k: v.shape for k, v in to_ours(state).items()} == own


def test_a_sam_can_be_swapped() -> None:
    config = SSPSAMConfig.preset("b16-224", sam="vit_b")
    assert config.sam.encoder_width == 768
    assert replace(config, sam=SMALL).sam.grid == 19
