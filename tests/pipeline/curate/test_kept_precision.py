"""The sample that true masks give a guarantee: even over masks though masks of one image go together."""

from __future__ import annotations

import numpy as np

from pipeline.curate.kept_precision import true_sample


def test_draws_are_even_over_masks_and_one_an_image() -> None:
    rng = np.random.default_rng(0)
    population, true = {}, {}
    for number in range(6000):
        image, masks = ("shard", f"{number:05d}"), int(rng.integers(0, 7))
        right = rng.random() < (0.95 if masks < 4 else 0.5)  # an image is right or wrong as a whole
        population.update({(*image, place): right * 0.5 + place * 0.05 for place in range(masks)})
        if rng.random() < 0.5:
            true[image] = dict.fromkeys(range(masks), float(right))
    found = true_sample(true, population)
    share = np.mean([p >= 0.5 for p in population.values()])
    assert 0.3 * len(true) < len(found.p) < 0.7 * len(true)
    # Far from the share of right images, 0.76, or of right first masks.
    assert abs(found.right.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(found.p))
    places = np.round((found.p - 0.5 * found.right) / 0.05).astype(int)
    expected = np.bincount([place for *_, place in population], minlength=6)
    seen = np.bincount(places, minlength=6)
    assert (abs(seen - expected * len(found.p) / len(population)) < 4 * np.sqrt(seen)).all()
    assert found.kept(0.5).all()
    assert len(found.kept(0.0)) == len(found.p)

    # Without its true mask a drawn mask is wrong, and the same masks are drawn at every call.
    none = true_sample({image: {} for image in true}, population)
    assert (none.p == found.p).all()
    assert not none.right.any()
