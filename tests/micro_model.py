"""A layout so small that a test may train it, and that the speed of a job does not matter."""

from __future__ import annotations

from dataclasses import replace

from sspsam import SSPSAMConfig


def micro_config() -> SSPSAMConfig:
    tiny = SSPSAMConfig.preset("tiny")
    return replace(
        tiny,
        clip=replace(tiny.clip, image_size=48, vision_width=48, vision_layers=2, text_layers=1),
        ssp=replace(tiny.ssp, width=32, prompts=4, layers=1, feed_forward=64),
        sam=replace(
            tiny.sam,
            image_size=64,
            encoder_width=32,
            encoder_depth=2,
            global_blocks=(1,),
            window=2,
            embed_dim=32,
            decoder_mlp=32,
            iou_hidden=32,
        ),
        score_size=64,
        min_target_pixels=10,
    )
