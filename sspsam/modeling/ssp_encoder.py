"""The semantic-spatial prompt (SSP) encoder: image tokens and a phrase in, SAM prompts out.

Follows the computation of the authors' published code, which their checkpoints were trained with.
N phrases; G*G patches, row by row; T text tokens; E CLIP's joint width; D `SSPConfig.width`;
C SAM's embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sspsam.model_config import SSPSAMConfig


@dataclass(frozen=True)
class TextFeatures:
    """All that the model needs of N phrases; computed once a phrase, used with any image."""

    sentence: Tensor  # (N, E), unit length
    words: Tensor  # (N, T, D), projected word states
    padding: Tensor  # (N, T) bool, true where there is no token
    word_attention: Tensor  # (N, T), sums to 1 over the tokens
    attended_phrase: Tensor  # (N, D), attention-weighted sum of `words`

    def __len__(self) -> int:
        return len(self.sentence)

    def take(self, index: Tensor) -> TextFeatures:
        """The phrases at `index` (M,) int64, in that order; repeats are allowed."""
        return TextFeatures(*(getattr(self, item.name)[index] for item in fields(self)))


@dataclass(frozen=True)
class SemanticSpatialPrompt:
    """Prompts for SAM, and the maps that explain them."""

    prompts: Tensor  # (N, P, C)
    boxes: Tensor  # (N, 4), cxcywh relative to the letterboxed CLIP square
    word_attention: Tensor  # (N, T), sums to 1
    similarity: Tensor  # (N, G, G), 0..1 over the image's patches
    gate: Tensor  # (N, G, G), 0..gate_scale


class LinguisticAttentionAdapter(nn.Module):
    """Which words of a phrase matter: a bidirectional GRU scores them."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.word_proj = nn.Linear(text_width, width)
        self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.score = nn.Linear(2 * width, 1)

    def forward(self, words: Tensor, padding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Args: words (N, T, text_width), padding (N, T) bool.

        Returns: projected words (N, T, D), word attention (N, T), attended phrase (N, D).
        """
        words = self.word_proj(words)
        scores = self.score(self.gru(words)[0]).squeeze(-1)
        # The softmax runs over all T and is masked afterwards, as the checkpoints were trained.
        attention = scores.softmax(dim=-1).masked_fill(padding, 0.0)
        attention = attention / attention.sum(dim=-1, keepdim=True)
        return words, attention, torch.einsum("nt,ntd->nd", attention, words)


class VisualAttentionAdapter(nn.Module):
    """Which patches answer to the phrase: similarity-weighted patches, gated by their words."""

    def __init__(self, embed_dim: int, width: int, heads: int) -> None:
        super().__init__()
        self.patch_mlp = _mlp(embed_dim, width, width, 3)
        self.words_to_patches = nn.MultiheadAttention(width, heads, batch_first=True)
        self.patch_proj = nn.Linear(width, width)
        self.words_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.gate_scale = nn.Parameter(torch.tensor([1.0]))
        self.gate_sigma = nn.Parameter(torch.tensor([0.5]))

    def forward(
        self, patches: Tensor, similarity: Tensor, text: TextFeatures
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Args: patches (N, G*G, E), similarity (N, G*G).

        Returns: queries (N, G*G, D), gated features (N, G*G, D), gate (N, G*G).
        """
        queries = self.patch_mlp(patches * similarity[..., None])
        attended, _ = self.words_to_patches(
            queries, text.words, text.words, key_padding_mask=text.padding, need_weights=False
        )
        cosine = F.cosine_similarity(self.patch_proj(queries), self.words_proj(attended), dim=-1)
        gate = self.gate_scale * torch.exp(-((1 - cosine) ** 2) / (2 * self.gate_sigma**2))
        return queries, self.norm(queries) * gate[..., None], gate


class PromptTransformerLayer(nn.Module):
    """A post-norm encoder layer; positions enter queries and keys, not values (as in DETR)."""

    def __init__(self, width: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1 = nn.Linear(width, feed_forward)
        self.linear2 = nn.Linear(feed_forward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, positions: Tensor, wanted: int | None = None) -> Tensor:
        """(N, L, C) to (N, L, C), or the first `wanted` tokens of it; positions (L, C)."""
        key = tokens + positions
        attended, _ = self.self_attn(key[:, :wanted], key, tokens, need_weights=False)
        tokens = self.norm1(tokens[:, :wanted] + attended)
        return self.norm2(tokens + self.linear2(self.linear1(tokens).relu_()))


class SSPEncoder(nn.Module):
    """Both adapters, their fusion, and the transformer that turns it into prompts and a box."""

    def __init__(self, config: SSPSAMConfig) -> None:
        super().__init__()
        clip, ssp, width = config.clip, config.ssp, config.sam.embed_dim
        self.grid, self.prompts = clip.grid, ssp.prompts
        self.linguistic = LinguisticAttentionAdapter(clip.text_width, ssp.width)
        self.visual = VisualAttentionAdapter(clip.embed_dim, ssp.width, ssp.heads)
        self.fusion = nn.Linear(ssp.width, width)
        self.box_token = nn.Parameter(torch.empty(1, width))
        self.prompt_tokens = nn.Parameter(torch.empty(ssp.prompts, width))
        self.positions = nn.Parameter(torch.empty(1 + ssp.prompts + clip.grid**2, width))
        self.layers = nn.ModuleList(
            PromptTransformerLayer(width, ssp.encoder_heads, ssp.feed_forward) for _ in range(ssp.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.box_head = _mlp(width, width, 4, 3)
        for parameter in (self.box_token, self.prompt_tokens, self.positions):
            nn.init.normal_(parameter)
        for parameter in self.layers.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def encode_text(self, token_ids: Tensor, words: Tensor, sentence: Tensor) -> TextFeatures:
        """The part that needs no image. Shapes as in `CLIPTowers.encode_text`."""
        padding = token_ids == 0
        projected, attention, phrase = self.linguistic(words, padding)
        return TextFeatures(F.normalize(sentence, dim=-1), projected, padding, attention, phrase)

    def forward(self, clip_tokens: Tensor, text: TextFeatures, image_index: Tensor) -> SemanticSpatialPrompt:
        """Prompts for N phrases of B images.

        Args:
            clip_tokens: (B, 1 + G*G, E), not normalised.
            text: of N phrases.
            image_index: (N,) int64, each phrase's image.
        """
        # The authors divide by the norm over the TOKEN axis, per channel.
        patches = F.normalize(clip_tokens, dim=1)[:, 1:][image_index]
        similarity = _min_max(torch.einsum("npe,ne->np", patches, text.sentence))
        _, gated, gate = self.visual(patches, similarity, text)
        fused = self.fusion(torch.tanh(gated) * torch.tanh(text.attended_phrase)[:, None])
        learned = torch.cat([self.box_token, self.prompt_tokens]).expand(len(fused), -1, -1)
        tokens = torch.cat([learned, fused], dim=1)
        for layer in self.layers[:-1]:
            tokens = layer(tokens, self.positions)
        # Of the last layer's patches nothing is read but by an auxiliary loss of training.
        wanted = None if self.training else 1 + self.prompts
        tokens = self.norm(self.layers[-1](tokens, self.positions, wanted))
        square = (len(fused), self.grid, self.grid)
        return SemanticSpatialPrompt(
            prompts=tokens[:, 1 : 1 + self.prompts],
            boxes=self.box_head(tokens[:, 0]).sigmoid(),
            word_attention=text.word_attention,
            similarity=similarity.view(square),
            gate=gate.view(square),
        )


def _mlp(inputs: int, hidden: int, outputs: int, layers: int) -> nn.Sequential:
    """Linear layers with ReLU between them; the Linears stand at even indices."""
    sizes = [inputs, *[hidden] * (layers - 1), outputs]
    modules: list[nn.Module] = []
    for i in range(layers):
        modules += [nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def _min_max(values: Tensor) -> Tensor:
    """(N, G*G) scaled to 0..1 over the patches; an image of equal patches gives zeros."""
    low = values.amin(dim=1, keepdim=True)
    high = values.amax(dim=1, keepdim=True)
    return (values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny)
