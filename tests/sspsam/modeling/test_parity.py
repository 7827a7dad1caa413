"""Every array of the parity fixture, through a checkpoint file in the authors' format."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sspsam import SSPSAM, SSPSAMOutput
from sspsam.images.geometry import logits_to_square
from tests.sspsam.modeling import parity


@pytest.fixture(scope="module", params=["before_first_forward", "after_first_forward"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SSPSAM:
    state = parity.authors_state()
    if request.param == "after_first_forward":
        state = parity.after_first_forward(state)
    path = parity.write_checkpoint(tmp_path_factory.mktemp("authors") / "c.pth", state)
    return SSPSAM.from_pretrained(path, device="cpu")


def close(name: str, actual: torch.Tensor, tolerance: float = 1e-4) -> None:
    expected = parity.EXPECTED[name]
    assert actual.shape == expected.shape, name
    difference = np.abs(actual.numpy() - expected).max()
    assert difference <= tolerance, f"{name} differs by {difference}"


@torch.no_grad()
def test_every_array_of_the_fixture(model: SSPSAM) -> None:
    prepared = [model.preprocess(image) for image in parity.images()]
    clip_pixels = torch.stack([clip for clip, _, _ in prepared])
    sam_pixels = torch.stack([sam for _, sam, _ in prepared])
    close("clip_pixels", clip_pixels[:, :, ::8, ::8], 1e-3)
    close("sam_pixels", sam_pixels[:, :, ::32, ::32], 1e-3)

    token_ids = model.tokenize(parity.RECIPE["phrases"])
    np.testing.assert_array_equal(token_ids.numpy(), parity.EXPECTED["text"])

    queries: list[torch.Tensor] = []
    fused: list[torch.Tensor] = []
    ssp = model.ssp_encoder
    hooks = [
        ssp.visual.patch_mlp.register_forward_hook(lambda *call: queries.append(call[2])),
        ssp.fusion.register_forward_hook(lambda *call: fused.append(call[2])),
    ]
    output = model(clip_pixels, token_ids, parity.sam_embedding())
    for hook in hooks:
        hook.remove()

    close("clip_image_tokens", model.encode_clip(clip_pixels)[:, ::8])
    close("word_attention", output.word_attention)
    close("img_query", queries[0][:, ::8])
    close("multi_modal", fused[0][:, ::4])
    close("semantic_spatial_prompts", output.prompts)
    close("pred_boxes", output.boxes)
    boxes = [
        geometry.clip.boxes_to_original(box[None])
        for (_, _, geometry), box in zip(prepared, output.boxes, strict=True)
    ]
    close("post_boxes", torch.cat(boxes), 1e-3)  # pixels, not fractions
    square = logits_to_square(output.mask_logits, 1024, model.config.score_size)
    close("pred_masks", square[:, ::4, ::4], 1e-3)


@torch.no_grad()
def test_phrases_of_several_images_in_any_order(model: SSPSAM) -> None:
    """Each phrase's result depends on its own image alone, whatever shares the batch."""
    clip_pixels = torch.stack([model.preprocess(image)[0] for image in parity.images()])
    embedding = parity.sam_embedding()
    token_ids = model.tokenize(parity.RECIPE["phrases"])
    order = torch.tensor([2, 0, 1, 0, 2])
    several: SSPSAMOutput = model(clip_pixels, token_ids[order], embedding, image_index=order)
    close("pred_boxes", several.boxes[[1, 2, 0]])
    close("semantic_spatial_prompts", several.prompts[[1, 2, 0]])
    torch.testing.assert_close(several.mask_logits[1], several.mask_logits[3])
    torch.testing.assert_close(several.prompts[0], several.prompts[4])
    alone = model(clip_pixels[2:], token_ids[2:], embedding[2:])
    torch.testing.assert_close(several.mask_logits[0], alone.mask_logits[0], atol=1e-4, rtol=0)
    assert several.similarity.shape == several.gate.shape == (5, 14, 14)
    assert several.predicted_iou.shape == (5,)
