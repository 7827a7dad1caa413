"""Signals that check a mask, for `SegmenterConfig.verify`: what the model's other answers say of it.

All of it works on the decoder's logits, at their own resolution, so that another phrase about the same image
costs its prompt and its pass through the mask decoder, and neither image features, upsampling nor RLE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F

from sspsam.errors import OutOfMemoryError
from sspsam.inference.changed_views import VIEWS, View, cut_outs
from sspsam.inference.edges import Edges
from sspsam.inference.memory import BatchSize, run_halving
from sspsam.inference.text_cache import TextCache
from sspsam.inference.transfers import to_device, to_host
from sspsam.language.phrase_text import clean_phrase
from sspsam.language.rivals import paraphrase, rivals

if TYPE_CHECKING:
    from sspsam.images.preprocess import ResizedImage
    from sspsam.inference.drafts import Draft, Task
    from sspsam.inference.results import SegmenterConfig
    from sspsam.modeling.model import SSPSAM, ImageFeatures
    from sspsam.modeling.ssp_encoder import TextFeatures

#: Side to which masks are brought before all masks of an image are compared with each other.
_SMALL = 64
#: (row of the phrase that is checked, what is asked).
_Asked: TypeAlias = "Sequence[tuple[int, str]]"


class Verifier:
    """Asks a model more about images than its masks need. For one thread at a time."""

    def __init__(self, model: SSPSAM, config: SegmenterConfig) -> None:
        self.model = model
        self.full = config.verify == "full"
        self.batch = BatchSize(config.phrases_per_batch)
        self._text = TextCache(model, 4 * config.cached_phrases, BatchSize(config.phrases_per_batch))

    def text(self, texts: Sequence[str]) -> TextFeatures:
        """Features of N texts."""
        distinct = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        encoded = self._text.encode(list(distinct)).features
        return encoded.take(to_device([distinct[text] for text in texts], self.model.device))

    def changed(self, images: Sequence[ResizedImage]) -> list[ImageFeatures]:
        """Features of B images as each of VIEWS shows them."""
        shown = ([view.of(image) for image in images] for view in VIEWS)
        return [self.model.encode_image(*self.model.squares(some)) for some in shown]


@dataclass(frozen=True)
class _Seen:
    """N phrases and what was drawn for them: all (N, L, L) over SAM's square, nothing outside the image."""

    tasks: Sequence[Task]
    slots: torch.Tensor  # (N,) int64
    shown: torch.Tensor  # bool: where the square shows the image
    probability: torch.Tensor
    masks: torch.Tensor  # bool

    @cached_property
    def drawn(self) -> torch.Tensor:
        """(N,) bool: which masks are not empty."""
        return self.masks.any(dim=(1, 2))


class Checks:
    """The signals of the phrases of one batch of images, gathered while their masks are made.

    Args:
        verifier: asks.
        drafts: of the images; they get the signals, and the error if what is asked does not fit into memory.
        features: of the images.
        images: the images themselves.
    """

    def __init__(
        self,
        verifier: Verifier,
        drafts: Sequence[Draft],
        features: ImageFeatures,
        images: Sequence[ResizedImage],
    ) -> None:
        self._verifier = verifier
        self._drafts = drafts
        self._features = features
        self._found: list[tuple[Sequence[Task], list[str], torch.Tensor]] = []
        self._small: list[torch.Tensor] = []
        self._changed: list[ImageFeatures] = []
        self._sam_squares = verifier.model.squares(images)[1]
        self._edges = Edges.of(self._sam_squares)
        if verifier.full:
            self._changed = verifier.changed(images)

    def see(self, tasks: Sequence[Task], logits: torch.Tensor) -> None:
        """Check N phrases whose masks were just decoded.

        Args:
            tasks: N phrases.
            logits: (N, L, L) float32 over SAM's square.
        """
        slots = to_device([task.slot for task in tasks], logits.device)
        shown = to_device(self._shown(tasks, logits.shape[-1]), logits.device)
        seen = _Seen(tasks, slots, shown, logits.sigmoid() * shown, (logits > 0) & shown)
        phrases = [clean_phrase(task.phrase) for task in tasks]
        signals = self._rivals(seen, phrases) | self._edge_signals(seen, logits)
        if self._verifier.full:
            signals |= self._views(seen, phrases) | {"clip_margin": self._clip_margin(seen, phrases)}
        values = torch.stack(list(signals.values()))
        self._found.append((tasks, list(signals), to_host(values)))
        self._small.append(F.adaptive_avg_pool2d(seen.masks.float(), min(_SMALL, logits.shape[-1])))

    def finish(self) -> Callable[[], None]:
        """When all are seen: what hands the signals to the drafts, once `transfers.copied` says so."""
        slots = [task.slot for tasks, *_ in self._found for task in tasks]
        counts = [slots.count(slot) for slot in dict.fromkeys(slots)]
        shared = to_host(shared_regions(torch.cat(self._small), counts)) if slots else torch.empty(0)
        return partial(self._hand_over, shared)

    def _hand_over(self, shared: torch.Tensor) -> None:
        rest = iter(shared.tolist())
        for tasks, names, values in self._found:
            for task, told in zip(tasks, values.T.tolist(), strict=True):
                signals = dict(zip(names, told, strict=True)) | {"shared_region": next(rest)}
                self._drafts[task.slot].signals[task.position] = {
                    name: value if math.isfinite(value) else None for name, value in signals.items()
                }

    def _rivals(self, seen: _Seen, phrases: Sequence[str]) -> dict[str, torch.Tensor]:
        pixels = seen.masks.sum(dim=(1, 2))
        score = (seen.probability * seen.masks).sum(dim=(1, 2)) / pixels

        def compare(rows: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
            own, drawn = seen.masks[rows], probability > 0.5
            both, union = (own & drawn).sum(dim=(1, 2)), (own | drawn).sum(dim=(1, 2))
            inside = (probability * own).sum(dim=(1, 2)) / pixels[rows]
            return torch.stack([inside, both / union]).nan_to_num()

        asked = [(row, text) for row, phrase in enumerate(phrases) for text in rivals(phrase)]
        again = [(row, paraphrase(phrase)) for row, phrase in enumerate(phrases)]
        strongest = self._ask(seen, asked, self._features, compare)
        return {
            "expected_iou": _expected_iou(seen.probability, seen),
            "paraphrase_iou": self._ask(seen, again, self._features, partial(_soft_iou, seen))[0],
            "rival_margin": score - strongest[0],
            "rival_iou": strongest[1].masked_fill(~seen.drawn, math.nan),
        }

    def _edge_signals(self, seen: _Seen, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        slots = [task.slot for task in seen.tasks]
        masks = F.interpolate((logits * seen.shown)[:, None], self._edges.size, mode="bilinear")[:, 0] > 0
        found = zip(("edge_iou", "edge_contrast"), self._edges.agreement(slots, masks), strict=True)
        return {name: values.masked_fill(~seen.drawn, math.nan) for name, values in found}

    def _views(self, seen: _Seen, phrases: Sequence[str]) -> dict[str, torch.Tensor]:
        frames = [self._drafts[task.slot].geometry.sam for task in seen.tasks]
        sides = [(frame.resized_width / frame.size, frame.resized_height / frame.size) for frame in frames]
        extents = torch.tensor(sides).to(seen.slots.device, non_blocking=True)
        found: dict[str, torch.Tensor] = {}
        total, number = seen.probability.clone(), torch.ones_like(extents[:, :1, None])
        for view, features in zip(VIEWS, self._changed, strict=True):
            said = ((row, view.phrase(phrase)) for row, phrase in enumerate(phrases))
            asked = [(row, text) for row, text in said if text is not None]

            def compare(rows: torch.Tensor, probability: torch.Tensor, view: View = view) -> torch.Tensor:
                back = view.back(probability, extents[rows])
                total.index_add_(0, rows, back)
                number.index_add_(0, rows, torch.ones_like(number[rows]))
                return _soft_iou(seen, rows, back)

            agreement = self._ask(seen, asked, features, compare)[0]
            found[view.signal] = torch.fmin(found.get(view.signal, agreement), agreement)
        return found | {"views_iou": _expected_iou(total / number, seen)}

    def _clip_margin(self, seen: _Seen, phrases: Sequence[str]) -> torch.Tensor:
        """(N,) how much more the cut-out is like the phrase than like its rivals, to CLIP's class token."""
        model = self._verifier.model
        slots = [task.slot for task in seen.tasks]
        cut = cut_outs(self._sam_squares, slots, seen.masks, model.config.clip.image_size)
        classes = F.normalize(model.encode_clip(cut)[:, 0], dim=-1)
        asked = [(row, text) for row, phrase in enumerate(phrases) for text in rivals(phrase)]
        if not asked:
            return torch.full_like(classes[:, 0], math.nan)
        rows = to_device([row for row, _ in asked], classes.device)
        own = (self._verifier.text(phrases).sentence * classes).sum(dim=-1)
        others = (self._verifier.text([text for _, text in asked]).sentence * classes[rows]).sum(dim=-1)
        nearest = torch.full_like(own, math.nan).scatter_reduce(0, rows, others, "amax", include_self=False)
        return (own - nearest).masked_fill(~seen.drawn, math.nan)

    def _ask(
        self,
        seen: _Seen,
        asked: _Asked,
        features: ImageFeatures,
        compare: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """(K, N) the highest of what `compare` gives for each phrase, NaN where nothing was asked for it.

        compare: (R,) rows and (R, L, L) probabilities of what was asked, to (K, R).
        """
        model, device = self._verifier.model, seen.slots.device

        def run(part: _Asked) -> torch.Tensor:
            rows = to_device([row for row, _ in part], device)
            text = self._verifier.text([text for _, text in part])
            prompts = model.prompt(features, text, seen.slots[rows]).prompts
            logits, _ = model.decode(features.sam_embedding, prompts, seen.slots[rows])
            return compare(rows, logits.float().sigmoid() * seen.shown[rows])

        found, rows = [torch.empty(2, 0, device=device)], []
        for part, values in run_halving(run, asked, self._verifier.batch):
            if isinstance(values, OutOfMemoryError):
                self._drafts[seen.tasks[part[0][0]].slot].error = values
                continue
            found.append(values.expand(2, -1))
            rows += [row for row, _ in part]
        highest = torch.full((2, len(seen.tasks)), math.nan, device=device)
        index = to_device(torch.tensor(rows, dtype=torch.long), device).expand(2, -1)
        return highest.scatter_reduce(1, index, torch.cat(found, dim=1), "amax", include_self=False)

    def _shown(self, tasks: Sequence[Task], side: int) -> torch.Tensor:
        """(N, side, side) bool: which pixels of SAM's square show the image of each phrase."""
        shown = torch.zeros(len(tasks), side, side, dtype=torch.bool)
        for square, task in zip(shown, tasks, strict=True):
            rows, columns = self._drafts[task.slot].geometry.sam.inside(side)
            square[:rows, :columns] = True
        return shown


def _soft_iou(seen: _Seen, rows: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
    """(1, R) IoU of two drawings by their probabilities: sum of the lesser over sum of the greater.

    Where the first is empty: how far the second is.
    """
    own = seen.probability[rows]
    lesser, greater = torch.minimum(own, probability), torch.maximum(own, probability)
    iou = lesser.sum(dim=(1, 2)) / greater.sum(dim=(1, 2))
    return torch.where(seen.drawn[rows], iou, _emptiness(probability))[None]


def _expected_iou(probability: torch.Tensor, seen: _Seen) -> torch.Tensor:
    """(N,) IoU of mask and truth if each pixel were of the truth with its probability.

    Where the mask is empty: how far the probabilities are.
    """
    inside = (probability * seen.masks).sum(dim=(1, 2))
    outside = (probability * ~seen.masks).sum(dim=(1, 2))
    return torch.where(seen.drawn, inside / (seen.masks.sum(dim=(1, 2)) + outside), _emptiness(probability))


def _emptiness(probability: torch.Tensor) -> torch.Tensor:
    """(N,) 1 less the highest probability of (N, L, L)."""
    return 1 - probability.amax(dim=(1, 2))


def shared_regions(masks: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """(N,) the highest IoU of each mask with another of its image; NaN for an empty or a lone one.

    Args:
        masks: (N, S, S) float32, 0..1 where a pixel is covered in part.
        counts: masks of each image, which stand together.
    """
    highest = []
    for some in masks.flatten(1).split(list(counts)):
        both, own = some @ some.T, some.sum(dim=1)
        iou = both / (own[:, None] + own - both)
        best = iou.fill_diagonal_(-1).nan_to_num(-1).amax(dim=1)
        highest.append(best.masked_fill((best < 0) | (own == 0), math.nan))
    return torch.cat(highest)
