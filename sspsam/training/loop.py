"""The training loop: plain torch, one process, resumable to the bit on a CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sspsam.modeling.model import SSPSAM
from sspsam.training.config import STAGES, TrainConfig
from sspsam.training.features import FeatureCache
from sspsam.training.scene_batches import SceneSource
from sspsam.training.stages import STAGE_LOSSES
from sspsam.training.state import TrainState, load_state, save_state, update_ema
from sspsam.training.validate import validate

_REPORT_EVERY = 20  # steps


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine down to `final_rate`; as a factor of the peak."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    span = max(1, config.steps - config.warmup)
    part = min(1.0, (step - config.warmup) / span)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * part))


def trainable(model: nn.Module, stage: str) -> dict[str, nn.Parameter]:
    """The parameters of a stage by name; switches the gradient of all others off."""
    chosen = {}
    for name, parameter in model.named_parameters():
        trains = name.startswith(STAGES[stage])
        parameter.requires_grad_(trains)
        if trains:
            chosen[name] = parameter
    return chosen


def make_optimizer(parameters: dict[str, nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; biases, norms and tokens do not decay; the mask decoder has its own rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        key = (parameter.dim() > 1, name.startswith("sam.mask_decoder."))
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": members,
                "weight_decay": config.weight_decay if decays else 0.0,
                "rate": config.decoder_rate if decoder and config.stage == "masks" else 1.0,
                "decoder": decoder and config.stage == "masks",
            }
            for (decays, decoder), members in groups.items()
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
    )


def set_rates(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> None:
    """The step's learning rate in every group; 0 for a mask decoder that is still frozen."""
    rate = config.learning_rate * learning_rate(config, step)
    frozen = step < config.decoder_frozen * config.steps
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if group["decoder"] and frozen else rate * group["rate"]


def train_step(
    state: TrainState,
    config: TrainConfig,
    source: SceneSource,
    cache: FeatureCache | None,
    parameters: list[nn.Parameter],
) -> dict[str, float]:
    """One optimiser step; returns the step's losses."""
    model = state.model
    assert isinstance(model, SSPSAM)
    set_rates(state.optimizer, config, state.step)
    state.optimizer.zero_grad(set_to_none=True)
    told: dict[str, float] = {}
    for part in range(config.accumulate):
        position = state.step * config.accumulate + part
        batch = source.batch(position, config.images, config.phrases, model.device)
        losses = STAGE_LOSSES[config.stage](model, batch, config, cache)
        total = torch.stack(list(losses.values())).sum() / config.accumulate
        total.backward()  # type: ignore[no-untyped-call]
        for name, value in losses.items():
            told[name] = told.get(name, 0.0) + float(value.detach()) / config.accumulate
    nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    state.optimizer.step()
    state.step += 1
    update_ema(state, config.ema_decay)
    return told


@contextmanager
def averaged(state: TrainState) -> Iterator[SSPSAM]:
    """The model with its averaged weights, for the time of the block."""
    parameters = dict(state.model.named_parameters())
    kept: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, value in state.ema.items():
            kept[name] = parameters[name].detach().clone()
            parameters[name].copy_(value)
    try:
        assert isinstance(state.model, SSPSAM)
        yield state.model
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                parameters[name].copy_(value)


def train(
    model: SSPSAM,
    config: TrainConfig,
    source: SceneSource,
    validation: SceneSource,
    output: Path,
    *,
    say: Callable[[str], None] = print,
    writer: Any = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Train one stage, going on where `output/checkpoint.pt` left off.

    Args:
        source: training batches.
        validation: scenes that training never sees.
        output: receives checkpoint.pt, validation/*.png and, at the end, the averaged model as a
            folder `model/` that `from_pretrained` takes.
        say: told one progress line every few steps.
        writer: a TensorBoard SummaryWriter.
        stop: asked after each step; true ends the run after a checkpoint.

    Returns:
        The last validation's measures.
    """
    parameters = trainable(model, config.stage)
    state = TrainState(
        step=0,
        model=model,
        optimizer=make_optimizer(parameters, config),
        ema={name: parameter.detach().clone() for name, parameter in parameters.items()},
    )
    checkpoint = output / "checkpoint.pt"
    if checkpoint.exists():
        load_state(state, config, checkpoint)
        say(f"resuming {config.stage} at step {state.step} of {config.steps}")
    cache = None
    if config.cache_features:
        assert source.pool is not None
        cache = FeatureCache(model, source.pool, source.pool_size, config.stage == "masks")
    model.train()
    measures: dict[str, float] = {}
    since, first = time.monotonic(), state.step
    sums: dict[str, float] = {}
    while state.step < config.steps and not stop():
        for name, value in train_step(state, config, source, cache, list(parameters.values())).items():
            sums[name] = sums.get(name, 0.0) + value
        if state.step % _REPORT_EVERY == 0:
            rate = (state.step - first) / (time.monotonic() - since)
            mean = {name: value / _REPORT_EVERY for name, value in sums.items()}
            sums = {}
            say(_progress(config, state.step, mean, rate))
            if writer is not None:
                for name, value in mean.items():
                    writer.add_scalar(f"{config.stage}/{name}", value, state.step)
        last = state.step == config.steps
        if state.step % config.checkpoint_every == 0 or last:
            save_state(state, config, checkpoint)
        if state.step % config.validate_every == 0 or last:
            with averaged(state) as smooth:
                picture = output / "validation" / f"{config.stage}-{state.step:06d}.png"
                measures = validate(smooth, validation, config, picture)
                smooth.save_pretrained(output / "model")
            told = ", ".join(f"{name} {value:.3f}" for name, value in measures.items())
            say(f"{config.stage} {state.step}: {told}")
            if writer is not None:
                for name, value in measures.items():
                    writer.add_scalar(f"validation/{config.stage}/{name}", value, state.step)
    if state.step < config.steps:
        save_state(state, config, checkpoint)
    return measures


def _progress(config: TrainConfig, step: int, losses: dict[str, float], rate: float) -> str:
    left = (config.steps - step) / max(rate, 1e-9)
    told = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
    images = rate * config.images * config.accumulate
    return (
        f"{config.stage} {step}/{config.steps} {told} | {images:.1f} images/s, "
        f"{int(left // 60)}:{int(left % 60):02d} left"
    )
