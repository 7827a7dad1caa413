"""The loop: what moves and what does not, resuming to the bit, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sspsam import SSPSAM, SSPSAMConfig
from sspsam.errors import CheckpointError, ConfigError, DivergedError
from sspsam.scenes import SceneConfig
from sspsam.training.loop import _Report, train
from sspsam.training.optimizer import trainable
from sspsam.training.process import Process
from sspsam.training.recipes import RECIPES
from sspsam.training.scene_batches import SceneSource
from sspsam.training.stages import STAGE_LOSSES
from sspsam.training.train_config import STAGES, TrainConfig
from sspsam.training.validate import validate

_CONFIG = TrainConfig(
    steps=6,
    images=2,
    phrases=3,
    warmup=2,
    checkpoint_every=2,
    validate_every=6,
    validation_scenes=2,
    gate_weight=1.0,
    iou_weight=1.0,
)


def _run(
    model: SSPSAM,
    config: TrainConfig,
    scenes: SceneSource,
    output: Path,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, torch.Tensor]:
    said: list[str] = []
    train(model, config, scenes, scenes, output, say=said.append, stop=stop)
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_moves_its_own_parameters_and_no_others(
    stage: str, small_model: SSPSAM, small_scenes: SceneSource, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in small_model.state_dict().items()}
    after = _run(small_model, replace(_CONFIG, stage=stage, steps=2), small_scenes, tmp_path)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith(STAGES[stage]) for name in moved)
    parameters = dict(small_model.named_parameters())
    expected = {name for name in parameters if name.startswith(STAGES[stage])}
    # At least three quarters learn at once: tokens of masks that are not asked for never do.
    assert len(moved) > 0.6 * len(expected), expected - moved
    loaded = SSPSAM.from_pretrained(tmp_path / "model", device="cpu")
    assert set(loaded.state_dict()) == set(before)
    assert (tmp_path / "validation").exists() == (stage in ("boxes", "masks"))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    dropout: float, micro_config: SSPSAMConfig, small_scenes: SceneSource, tmp_path: Path
) -> None:
    config = replace(_CONFIG, attention_dropout=dropout)
    results = []
    for interruptions in ((), (3,), (2, 5)):
        folder = tmp_path / str(len(results))
        for last in (*interruptions, config.steps):
            torch.manual_seed(0)
            model = SSPSAM(micro_config)
            torch.manual_seed(last)  # whatever else the process drew must not matter
            steps = iter(range(last))
            state = _run(model, config, small_scenes, folder, lambda s=steps: next(s, None) is None)
        results.append((state, torch.load(folder / "checkpoint.pt", weights_only=True)))
    first, first_checkpoint = results[0]
    for other, checkpoint in results[1:]:
        assert all(torch.equal(first[name], other[name]) for name in first)
        for name, value in first_checkpoint["ema"].items():
            assert torch.equal(value, checkpoint["ema"][name]), name
        assert checkpoint["step"] == config.steps


def test_dropout_is_the_authors_and_in_training_alone(
    small_model: SSPSAM, small_scenes: SceneSource, tmp_path: Path
) -> None:
    """A tenth of the attention weights is dropped while training: right on average, nothing in evaluation."""
    assert {r.attention_dropout for name in ("boxes", "masks") for r in RECIPES[f"published-{name}"]} == {0.1}
    _run(small_model, replace(_CONFIG, steps=1, attention_dropout=0.5), small_scenes, tmp_path)
    attention = small_model.ssp_encoder.visual.words_to_patches
    queries, words = torch.randn(1, 4, attention.embed_dim), torch.randn(1, 6, attention.embed_dim)
    with torch.no_grad():
        whole = attention.eval()(queries, words, words, need_weights=False)[0]
        assert torch.equal(whole, attention(queries, words, words, need_weights=False)[0])
        attention.train()
        drawn = torch.stack([attention(queries, words, words, need_weights=False)[0] for _ in range(800)])
    assert (drawn[0] - whole).abs().max() > 0.02
    torch.testing.assert_close(drawn.mean(0), whole, atol=0.15 * float(drawn.std()), rtol=0)


def test_a_checkpoint_holds_what_trains_and_knows_the_rest(
    micro_config: SSPSAMConfig, small_scenes: SceneSource, tmp_path: Path
) -> None:
    for seed in range(2):
        torch.manual_seed(seed)
        SSPSAM(micro_config).save_pretrained(tmp_path / f"start-{seed}")
    config = replace(_CONFIG, stage="boxes", steps=4)

    def run(folder: Path, last: int, seed: int = 0) -> dict[str, torch.Tensor]:
        model = SSPSAM.from_pretrained(tmp_path / f"start-{seed}", device="cpu")
        steps = iter(range(last))
        return _run(model, config, small_scenes, folder, lambda: next(steps, None) is None)

    whole = run(tmp_path / "whole", 4)
    for version in ("now", "before"):
        checkpoint = tmp_path / version / "checkpoint.pt"
        stopped = run(checkpoint.parent, 2)
        content = torch.load(checkpoint, weights_only=True)
        assert content["model"].keys() == content["ema"].keys()
        assert all(name.startswith(STAGES["boxes"]) for name in content["model"])
        if version == "before":  # which wrote all weights, and nothing of the start
            old = {name: content[name] for name in content if name not in ("frozen", "start")}
            torch.save(old | {"model": stopped}, checkpoint)
        else:
            with pytest.raises(CheckpointError, match=r"from .*start-0, and the weights of clip, sam that"):
                run(checkpoint.parent, 4, seed=1)
        resumed = run(checkpoint.parent, 4)
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
        assert (torch.load(checkpoint, weights_only=True))["frozen"].keys() == {"clip", "sam"}


def test_processes_share_a_validation_and_measure_what_one_would(
    small_model: SSPSAM, small_scenes: SceneSource
) -> None:
    config = replace(_CONFIG, validation_scenes=40)
    shares: list[dict[int, object]] = []
    for rank in range(2):
        validate(
            small_model,
            small_scenes,
            config,
            process=Process(rank, 2, gather=lambda share: shares.append(share) or [share]),
        )
    assert [sorted(share) for share in shares] == [[0, 32], [16]]
    together = validate(small_model, small_scenes, config, process=Process(0, 2, gather=lambda share: shares))
    assert together == validate(small_model, small_scenes, config)


def test_checkpoints_of_other_settings_or_damaged_ones_are_refused(
    small_model: SSPSAM, small_scenes: SceneSource, tmp_path: Path
) -> None:
    _run(small_model, replace(_CONFIG, steps=2), small_scenes, tmp_path)
    with pytest.raises(CheckpointError, match=r"learning_rate: 0\.001 there, 0\.5 here"):
        _run(small_model, replace(_CONFIG, steps=2, learning_rate=0.5), small_scenes, tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        _run(small_model, replace(_CONFIG, steps=2), small_scenes, tmp_path)


def test_a_run_that_diverges_stops_and_keeps_its_last_finite_checkpoint(
    small_model: SSPSAM, small_scenes: SceneSource, tmp_path: Path
) -> None:
    with pytest.raises(DivergedError, match=r"stage masks, step \d+: .*--learning-rate"):
        _run(small_model, replace(_CONFIG, steps=40, learning_rate=1e12), small_scenes, tmp_path)
    assert not (tmp_path / "model").exists()
    found = tmp_path / "checkpoint.pt"
    if found.exists():  # of a step at which everything was finite
        content = torch.load(found, weights_only=True)
        assert all(torch.isfinite(value).all() for value in content["ema"].values())


def test_nothing_that_is_not_finite_is_exported(
    small_model: SSPSAM, small_scenes: SceneSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even what no gradient tells of: a loss without one, a weight of the start that does not train."""
    short = replace(_CONFIG, steps=2, stage="boxes")

    def endless(*arguments: object) -> dict[str, torch.Tensor]:
        return {"l1": torch.tensor(math.inf), "giou": small_model.ssp_encoder.box_token.sum()}

    with monkeypatch.context() as patch:
        patch.setitem(STAGE_LOSSES, "boxes", endless)
        with pytest.raises(DivergedError, match=r"stage boxes, step 1: .*l1 inf"):
            _run(small_model, short, small_scenes, tmp_path)
    with torch.no_grad():
        small_model.sam.mask_decoder.mask_tokens.weight[1] = math.nan
    with pytest.raises(CheckpointError, match=r"mask_tokens\.weight is not finite"):
        _run(small_model, short, small_scenes, tmp_path)
    assert {one.name for one in tmp_path.iterdir()} <= {"validation"}  # the start's pictures


def test_a_loss_far_above_its_usual_is_said() -> None:
    said: list[str] = []
    report = _Report(_CONFIG, 0, 1, said.append, None)
    for step in range(1, 60):
        report.add(step, {"dice": 1.0 + 9.0 * (step == 45)})
    assert [line for line in said if "running mean" in line] == [
        "masks 45: loss 10.000 is 10.0 times its running mean"
    ]


def test_a_checkpoint_of_other_data_is_refused_by_name(
    small_model: SSPSAM, small_scenes: SceneSource, tmp_path: Path
) -> None:
    def run(data: dict[str, object]) -> None:
        short = replace(_CONFIG, steps=2)
        train(small_model, short, small_scenes, small_scenes, tmp_path, data=data, say=lambda line: None)

    run({"data": "/a", "flip": 0.5})
    run({"data": "/a", "flip": 0.5})
    with pytest.raises(CheckpointError, match=r"data: '/a' there, '/b' here.*another OUTPUT"):
        run({"data": "/b", "flip": 0.5})
    with pytest.raises(CheckpointError, match=r"flip: 0\.5 there, 0\.0 here"):
        run({"data": "/a", "flip": 0.0})
    run({"data": "/a", "flip": 0.5, "later": 1})  # which an earlier version could not tell


def test_accumulated_batches_count_as_one_larger_step(
    micro_config: SSPSAMConfig, small_scenes: SceneSource, tmp_path: Path
) -> None:
    """Boxes without a mean over phrases in between: two halves make the gradient of their mean."""
    torch.manual_seed(0)
    model = SSPSAM(micro_config)
    config = replace(_CONFIG, stage="align", steps=1, accumulate=2, clip_norm=1e9)
    _run(model, config, small_scenes, tmp_path)
    gradient = model.clip.visual_projection.weight.grad
    assert gradient is not None
    total = torch.zeros_like(gradient)
    for position in range(2):
        from sspsam.training.stages import align

        torch.manual_seed(0)
        fresh = SSPSAM(micro_config)
        trainable(fresh, config)
        batch = small_scenes.batch(position, config.images, config.phrases, fresh.device)
        torch.stack(list(align(fresh, batch, config, None).values())).sum().backward()
        assert fresh.clip.visual_projection.weight.grad is not None
        total += fresh.clip.visual_projection.weight.grad / 2
    torch.testing.assert_close(gradient, total, rtol=1e-4, atol=1e-6)


def test_cached_features_give_the_losses_of_running_the_towers(
    micro_config: SSPSAMConfig, tmp_path: Path
) -> None:
    from sspsam.training.features import FeatureCache
    from sspsam.training.stages import masks

    torch.manual_seed(0)
    model = SSPSAM(micro_config)
    scenes = SceneSource(micro_config, SceneConfig(size=64), 0, pool=6, folder=tmp_path)
    assert scenes.pool is not None
    batch = scenes.batch(0, 4, 3, model.device)
    cache = FeatureCache(model, scenes.pool, 6)
    with torch.no_grad():
        direct, cached = (masks(model, batch, _CONFIG, c) for c in (None, cache))
    for name, value in direct.items():
        assert float(cached[name]) == pytest.approx(float(value), rel=2e-3), name
    again = SceneSource(micro_config, SceneConfig(size=64), 0, pool=6, folder=tmp_path)
    assert torch.equal(again.batch(0, 4, 3, model.device).sam_pixels, batch.sam_pixels)


def test_settings_that_cannot_work_name_their_flag() -> None:
    for settings, told in (
        ({"stage": "nothing"}, "--stage"),
        ({"steps": 0}, "--steps"),
        ({"cache_features": True, "pool": 5, "stage": "align"}, "align"),
        ({"ema_decay": 1.0}, "--ema-decay"),
        ({"precision": "float8"}, "--precision"),
    ):
        with pytest.raises(ConfigError, match=told):
            TrainConfig(**settings)  # type: ignore[arg-type]
