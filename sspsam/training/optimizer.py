"""Trainable parameters, the optimiser's parameter groups, and the learning-rate schedules."""

from __future__ import annotations

import math

import torch
from torch import nn

from sspsam.training.train_config import PROMPT_STAGES, STAGES, VISION, TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine down to `final_rate`; as a factor of the peak."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    span = max(1, config.steps - config.warmup)
    part = min(1.0, (step - config.warmup) / span)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * part))


def published_rate(config: TrainConfig, step: int, peak: float) -> float:
    """The authors' schedule (timm's CosineLRScheduler), by step instead of by epoch: linear from
    `lowest_rate` to the peak, then the cosine of the whole run down to `lowest_rate`."""
    low = config.lowest_rate
    if step < config.warmup:
        return low + (peak - low) * step / config.warmup
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))


def decoder_is_frozen(config: TrainConfig, step: int) -> bool:
    """Whether SAM's mask decoder does not train yet."""
    return config.stage == "masks" and step < config.decoder_frozen * config.steps


def trainable(model: nn.Module, config: TrainConfig) -> dict[str, nn.Parameter]:
    """The parameters of a stage by name; switches the gradient of all others off."""
    chosen = {}
    text_stays = config.stage in PROMPT_STAGES and not config.text_tower
    prefixes = STAGES[config.stage] + (VISION if config.trains_vision else ())
    for name, parameter in model.named_parameters():
        trains = name.startswith(prefixes)
        trains = trains and not (text_stays and name.startswith("clip.text"))
        parameter.requires_grad_(trains)
        if trains:
            chosen[name] = parameter
    return chosen


def make_optimizer(parameters: dict[str, nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; biases, norms and tokens do not decay unless `decay_all`; the mask decoder and CLIP's image
    tower have rates of their own where the SSP encoder trains."""
    groups: dict[tuple[bool, str], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault((parameter.dim() > 1, _part(name, config)), []).append(parameter)
    rates = {"decoder": config.decoder_rate, "vision": config.vision_rate}
    return torch.optim.AdamW(
        [
            {
                "params": members,
                "weight_decay": config.weight_decay if decays or config.decay_all else 0.0,
                "rate": rates.get(part, 1.0),
                "decoder": part == "decoder",
            }
            for (decays, part), members in groups.items()
        ],
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
    )


def _part(name: str, config: TrainConfig) -> str:
    """Which rate a parameter follows."""
    if config.stage == "masks" and name.startswith("sam.mask_decoder."):
        return "decoder"
    return "vision" if config.trains_vision and name.startswith(VISION) else "rest"


def set_rates(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> None:
    """The step's learning rate in every group; 0 for a mask decoder that is still frozen."""
    rate = config.learning_rate * learning_rate(config, step)
    frozen = decoder_is_frozen(config, step)
    for group in optimizer.param_groups:
        own = rate * group["rate"]
        if config.lowest_rate > 0:
            own = published_rate(config, step, config.learning_rate * group["rate"])
        group["lr"] = 0.0 if group["decoder"] and frozen else own
