"""The training loop: plain torch, one process, resumable to the bit on a CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sspsam.errors import CheckpointError, DivergedError
from sspsam.modeling.model import SSPSAM
from sspsam.training.features import FeatureCache
from sspsam.training.optimizer import decoder_is_frozen, make_optimizer, set_rates, trainable
from sspsam.training.process import Process, Source, StageLosses
from sspsam.training.state import TrainState, load_state, save_state, update_ema
from sspsam.training.train_config import TrainConfig
from sspsam.training.validate import validate

_REPORT_EVERY = 20  # steps
_SPIKE = 4.0  # times the running mean: a loss that is reported


def train_step(
    state: TrainState,
    config: TrainConfig,
    source: Source,
    losses_of: nn.Module,
    parameters: list[nn.Parameter],
) -> dict[str, float]:
    """One optimiser step; returns the step's losses, of this process."""
    model = state.model
    assert isinstance(model, SSPSAM)
    set_rates(state.optimizer, config, state.step)
    if config.attention_dropout:  # what is dropped is a function of the step too, on any device
        torch.manual_seed(1009 * config.seed + state.step)
    state.optimizer.zero_grad(set_to_none=True)
    told: dict[str, float] = {}
    for part in range(config.accumulate):
        position = state.step * config.accumulate + part
        batch = source.batch(position, config.images, config.phrases, model.device)
        # Of the micro-batches of a step, the last one's backward brings the processes together.
        quiet = getattr(losses_of, "no_sync", None) if part + 1 < config.accumulate else None
        with quiet() if quiet else nullcontext():
            losses = losses_of(batch)
            total = torch.stack(list(losses.values())).sum() / config.accumulate
            total.backward()
        for name, value in losses.items():
            told[name] = told.get(name, 0.0) + float(value.detach()) / config.accumulate
    if decoder_is_frozen(config, state.step):  # as if it had no gradient: no norm, no moments
        for parameter in model.sam.mask_decoder.parameters():
            parameter.grad = None
    # Gradients are the same in all processes: all of them stop here, at the same step.
    norm = float(nn.utils.clip_grad_norm_(parameters, config.clip_norm))
    if not all(map(math.isfinite, (norm, *told.values()))):
        shown = ", ".join(f"{name} {value:g}" for name, value in told.items())
        raise DivergedError(
            f"stage {config.stage}, step {state.step + 1}: gradient norm {norm:g} (losses: {shown}). "
            f"The checkpoint of an earlier step stays as it was; lower --learning-rate or --clip-norm"
        )
    state.optimizer.step()
    state.step += 1
    update_ema(state, config.ema_decay)
    return told


def require_finite(state: TrainState, config: TrainConfig) -> None:
    """Raise DivergedError if a weight that trains is not finite: it is not saved over what was good."""
    weights = state.model.state_dict()
    for name, average in state.ema.items():
        if not bool(torch.isfinite(weights[name]).all() and torch.isfinite(average).all()):
            raise DivergedError(
                f"stage {config.stage}, step {state.step}: {name} is not finite. The checkpoint of an "
                "earlier step stays as it was; lower --learning-rate"
            )


@contextmanager
def averaged(state: TrainState, averages: Mapping[str, Tensor]) -> Iterator[SSPSAM]:
    """The model with these averaged weights, for the time of the block."""
    own = state.model.state_dict()
    kept = {name: own[name].clone() for name in averages}
    state.model.load_state_dict(averages, strict=False)
    try:
        assert isinstance(state.model, SSPSAM)
        yield state.model
    finally:
        state.model.load_state_dict(kept, strict=False)


def train(
    model: SSPSAM,
    config: TrainConfig,
    source: Source,
    validation: Source,
    output: Path,
    *,
    data: dict[str, Any] | None = None,
    process: Process | None = None,
    say: Callable[[str], None] = print,
    writer: Any = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Train one stage; resumes from `output/checkpoint.pt`.

    Args:
        source: training batches.
        validation: scenes that training never sees.
        output: receives checkpoint.pt, validation/*.png and, at the end, the averaged model as a
            folder `model/` that `from_pretrained` takes: the last one, or the best with `config.keep`.
        data: description of the data and the start (`recipes.origin`): a checkpoint of others is refused.
        process: rank and hooks of this process in distributed training.
        say: called with a progress line every few steps.
        writer: a TensorBoard SummaryWriter.
        stop: called after each step; true ends the run after a checkpoint.

    Returns:
        The metrics of the last validation.
    """
    process = process or Process()
    parameters = trainable(model, config)
    model.ssp_encoder.visual.words_to_patches.dropout = config.attention_dropout
    state = TrainState(
        step=0,
        model=model,
        optimizer=make_optimizer(parameters, config),
        ema={name: parameter.detach().clone() for name, parameter in parameters.items()},
        data=data or {},
    )
    checkpoint = output / "checkpoint.pt"
    found = process.restore() if process.restore else checkpoint
    if found is not None and found.exists():
        load_state(state, config, found)
        say(f"resuming {config.stage} at step {state.step} of {config.steps}")
    for name, value in model.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{model.source['name']}: {name} is not finite: start from another model")
    cache = None
    if config.cache_features and source.pool is not None:
        cache = FeatureCache(
            model, source.pool, source.pool_size, not config.trains_vision, config.stage == "masks"
        )
    model.train()
    losses_of: nn.Module = StageLosses(model, config, cache)
    losses_of = process.wrap(losses_of) if process.wrap else losses_of
    measures: dict[str, float] = {}
    report = _Report(config, state.step, process.world, say, writer)
    measure = partial(_validate, state, config, validation, output, process, say, writer)
    if state.step == 0:
        measure()  # the start, to compare with
    while not _is_done(state, config) and not stop():
        losses = train_step(state, config, source, losses_of, list(parameters.values()))
        report.add(state.step, losses)
        last = state.step == config.steps
        if last or state.step % config.checkpoint_every == 0 or state.step % config.validate_every == 0:
            require_finite(state, config)
        if state.step % config.validate_every == 0 or last:
            measures = measure()
        if state.step % config.checkpoint_every == 0 or _is_done(state, config):
            if process.rank == 0:
                save_state(state, config, checkpoint)
            if process.report:
                process.report(state.step, measures, checkpoint if process.rank == 0 else None)
    if process.rank == 0:
        _hand_on(state, config, output, say)
    return measures


def _is_done(state: TrainState, config: TrainConfig) -> bool:
    return state.step >= config.steps or state.best.ends(config)


def _hand_on(state: TrainState, config: TrainConfig, output: Path, say: Callable[[str], None]) -> None:
    """The model of a stage that is done, or the checkpoint of one that was stopped."""
    if not _is_done(state, config):
        require_finite(state, config)
        save_state(state, config, output / "checkpoint.pt")
        return
    best = state.best
    if best.ends(config):
        say(f"{config.stage} {state.step}: ends, nothing was better than step {best.step} (--patience)")
    if config.keep == "best":
        say(f"{config.stage}: kept are the weights of step {best.step} ({config.measure} {best.value:.3f})")
    with averaged(state, best.weights or state.ema) as model:
        model.save_pretrained(output / "model")


def _validate(
    state: TrainState,
    config: TrainConfig,
    validation: Source,
    output: Path,
    process: Process,
    say: Callable[[str], None],
    writer: Any,
) -> dict[str, float]:
    """Measure and save the averaged model, with a sheet of pictures; processes measure it together."""
    with averaged(state, state.ema) as smooth:
        picture = output / "validation" / f"{config.stage}-{state.step:06d}.png"
        measures = validate(smooth, validation, config, picture, process)
        if process.rank == 0 and state.step:
            smooth.save_pretrained(output / "model")
    state.best.see(state.step, measures, state.ema, config)
    told = ", ".join(f"{name} {value:.3f}" for name, value in measures.items())
    say(f"{config.stage} {state.step}: {told}")
    if writer is not None:
        for name, value in measures.items():
            writer.add_scalar(f"validation/{config.stage}/{name}", value, state.step)
    return measures


class _Report:
    """Progress lines: mean losses every few steps, and every loss far above its running mean."""

    def __init__(
        self, config: TrainConfig, first: int, world: int, say: Callable[[str], None], writer: Any
    ) -> None:
        self._config, self._first, self._world = config, first, world
        self._say, self._writer = say, writer
        self._since = time.monotonic()
        self._sums: dict[str, float] = {}
        self._usual = 0.0  # running mean of the total loss

    def add(self, step: int, losses: dict[str, float]) -> None:
        """`losses`: of the step that was done last, the `step`-th."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        loss, seen, stage = sum(losses.values()), step - self._first, self._config.stage
        if seen > _REPORT_EVERY and loss > _SPIKE * self._usual:
            self._say(f"{stage} {step}: loss {loss:.3f} is {loss / self._usual:.1f} times its running mean")
        self._usual += (loss - self._usual) / min(seen, 5 * _REPORT_EVERY)
        if step % _REPORT_EVERY == 0:
            mean = {name: value / _REPORT_EVERY for name, value in self._sums.items()}
            self._sums = {}
            self._say(self._progress(step, mean))
            if self._writer is not None:
                for name, value in mean.items():
                    self._writer.add_scalar(f"{stage}/{name}", value, step)

    def _progress(self, step: int, losses: dict[str, float]) -> str:
        config = self._config
        rate = (step - self._first) / (time.monotonic() - self._since)
        left = (config.steps - step) / max(rate, 1e-9)
        told = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        images = rate * config.images * config.accumulate * self._world
        return (
            f"{config.stage} {step}/{config.steps} {told} | {images:.1f} images/s, "
            f"{int(left // 60)}:{int(left % 60):02d} left"
        )
