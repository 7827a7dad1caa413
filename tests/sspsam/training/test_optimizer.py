"""The learning rates of a training, step by step."""

from __future__ import annotations

import math

import pytest

from sspsam import SSPSAM
from sspsam.training.optimizer import learning_rate, make_optimizer, set_rates, trainable
from sspsam.training.train_config import TrainConfig


def test_the_schedule_warms_up_falls_and_spares_a_frozen_decoder(small_model: SSPSAM) -> None:
    config = TrainConfig(steps=100, warmup=10, decoder_frozen=0.25, decoder_rate=0.1)
    factors = [learning_rate(config, step) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == pytest.approx(1.0)
    assert factors[9:] == sorted(factors[9:], reverse=True)
    assert learning_rate(config, 100) == pytest.approx(config.final_rate)
    middle = config.final_rate + (1 - config.final_rate) * 0.5
    assert learning_rate(config, 55) == pytest.approx(middle)
    assert math.isclose(factors[55], middle)
    optimizer = make_optimizer(trainable(small_model, config), config)
    for step, decoder in ((24, 0.0), (25, 0.1 * factors[25] * config.learning_rate)):
        set_rates(optimizer, config, step)
        rates = {group["decoder"]: group["lr"] for group in optimizer.param_groups}
        assert rates[True] == pytest.approx(decoder)
        assert rates[False] == pytest.approx(factors[step] * config.learning_rate)
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.0, config.weight_decay}
