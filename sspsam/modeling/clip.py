"""CLIP's two towers on `transformers`, with CLIP Surgery's second stream in the last vision blocks.

Sources: CLIP, arXiv 2103.00020; CLIP Surgery, arXiv 2304.05653, as the SSP-SAM authors' code runs
it (see docs/model.md for where code and paper differ).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

from sspsam.model_config import CLIPConfig


class CLIPTowers(nn.Module):
    """Image patches and words in CLIP's joint space.

    The modules are those of `transformers`, so its weights load as they are; only the order in
    which the last `config.surgery_layers` vision blocks run is ours.
    """

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=config.vision_width,
                intermediate_size=4 * config.vision_width,
                projection_dim=config.embed_dim,
                num_hidden_layers=config.vision_layers,
                num_attention_heads=config.vision_heads,
                image_size=config.image_size,
                patch_size=config.patch_size,
                attn_implementation="sdpa",  # type: ignore[call-arg]
            )
        )
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.text_width,
                intermediate_size=4 * config.text_width,
                projection_dim=config.embed_dim,
                num_hidden_layers=config.text_layers,
                num_attention_heads=config.text_heads,
                max_position_embeddings=config.context_length,
                bos_token_id=config.vocab_size - 2,
                eos_token_id=config.vocab_size - 1,
                pad_token_id=0,
                attn_implementation="sdpa",  # type: ignore[call-arg]
            )
        )
        self.visual_projection = nn.Linear(config.vision_width, config.embed_dim, bias=False)
        self.text_projection = nn.Linear(config.text_width, config.embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))  # ln(1 / 0.07), CLIP section 2.5
        nn.init.normal_(self.visual_projection.weight, std=config.vision_width**-0.5)
        nn.init.normal_(self.text_projection.weight, std=config.text_width**-0.5)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Tokens of images: class token, then patches row by row.

        The last blocks run two streams from the same tokens. The original one is CLIP's own. The
        surgery stream adds, block after block, a self-attention of the ORIGINAL stream's values
        with themselves (queries = keys = values) and has no MLP. Patches are taken from the
        surgery stream, the class token from the original one.

        Args:
            pixels: (B, 3, S, S), the letterboxed and normalised CLIP square.

        Returns:
            (B, 1 + G*G, E), not normalised.
        """
        # transformers' stubs type submodules as Tensor | Module.
        vision: nn.Module = self.vision
        hidden = vision.pre_layrnorm(vision.embeddings(pixels))  # type: ignore[operator]
        layers = list(vision.encoder.layers)  # type: ignore[union-attr,arg-type]
        split = len(layers) - self.config.surgery_layers
        for layer in layers[:split]:
            hidden = layer(hidden, attention_mask=None)
        original = surgery = hidden
        for layer in layers[split:]:
            # Of the last block's original stream only the class token is read.
            wanted = 1 if layer is layers[-1] else None
            attended, by_values = _two_attentions(layer.self_attn, layer.layer_norm1(original), wanted)
            surgery = surgery + by_values
            original = original[:, :wanted] + attended
            original = original + layer.mlp(layer.layer_norm2(original))
        tokens = torch.cat([original[:, :1], surgery[:, 1:]], dim=1)
        return self.visual_projection(vision.post_layernorm(tokens))  # type: ignore[operator]

    def encode_text(self, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Words and sentences.

        Args:
            token_ids: (N, T) int64, as `Tokenizer` makes them.

        Returns:
            words: (N, T, text_width), states after the final layer norm, before the projection.
            sentence: (N, E), the projected state at the end token, not normalised.
        """
        words = self.text(input_ids=token_ids).last_hidden_state
        rows = torch.arange(len(token_ids), device=token_ids.device)
        # The end token has the highest id, and only the first one counts (CLIP's own rule).
        return words, self.text_projection(words[rows, token_ids.argmax(dim=-1)])


def _two_attentions(attention: Any, normed: Tensor, wanted: int | None) -> tuple[Tensor, Tensor]:
    """Self-attention of (N, L, C): of its first `wanted` tokens, and with values for queries and keys.

    The second, (N, L, C), is "vv" in CLIP Surgery. The values are projected once for both.
    """

    def heads(tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)

    values = heads(attention.v_proj(normed))
    queries, keys = heads(attention.q_proj(normed[:, :wanted])), heads(attention.k_proj(normed))
    own = F.scaled_dot_product_attention(queries, keys, values)
    by_values = F.scaled_dot_product_attention(values, values, values)
    out = attention.out_proj
    return out(own.transpose(1, 2).flatten(2)), out(by_values.transpose(1, 2).flatten(2))
