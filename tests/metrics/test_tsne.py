"""t-SNE: neighbourhoods, gradient, separation; never exact coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from siamese_diffusion.metrics.mixing import mixing
from siamese_diffusion.metrics.tsne import (
    joint_probabilities,
    kl_divergence,
    kl_gradient,
    main_components,
    tsne,
)


def test_neighbourhoods_have_the_perplexity() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 5))
    p = joint_probabilities(rows, 8.0)
    assert p.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(p, p.T)
    assert (np.diag(p) == 0).all()
    # Rows of one cluster alone: their conditionals are uniform over the others.
    corners = np.eye(10)
    np.testing.assert_allclose(joint_probabilities(corners, 8.9)[0, 1:], 1 / 90, rtol=1e-6)


def test_conditionals_have_the_entropy_that_was_asked_for() -> None:
    from siamese_diffusion.metrics import tsne as module

    rows = np.random.default_rng(1).normal(size=(30, 4))
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        original = module._conditional

        def spy(squares: np.ndarray, beta: np.ndarray) -> np.ndarray:
            seen.append(original(squares, beta))
            return np.asarray(seen[-1])

        patch.setattr(module, "_conditional", spy)
        joint_probabilities(rows, 6.0)
    last = np.maximum(seen[-1], 1e-300)
    np.testing.assert_allclose(np.exp(-(seen[-1] * np.log(last)).sum(1)), 6.0, rtol=1e-9)


def test_gradient_equals_finite_differences() -> None:
    rng = np.random.default_rng(2)
    p = joint_probabilities(rng.normal(size=(12, 3)), 4.0)
    y = rng.normal(size=(12, 2))
    found = kl_gradient(p, y)
    for i, j in ((0, 0), (5, 1), (11, 0)):
        step = np.zeros_like(y)
        step[i, j] = 1e-6
        expected = (kl_divergence(p, y + step) - kl_divergence(p, y - step)) / 2e-6
        assert found[i, j] == pytest.approx(expected, abs=1e-7)


def test_separate_clusters_stay_separate_and_equal_ones_mix() -> None:
    rng = np.random.default_rng(3)
    x, far, same = (rng.normal(size=(60, 20)) + shift for shift in (0, 6, 0))
    apart = tsne(np.concatenate([x, far]), perplexity=10, iterations=400)
    assert apart.shape == (120, 2)
    assert mixing(apart[:60], apart[60:]) == 0.0
    mixed = tsne(np.concatenate([x, same]), perplexity=10, iterations=400)
    # The reference found 0.514 for its draw; 60 / 119 is expected.
    assert mixing(mixed[:60], mixed[60:]) == pytest.approx(0.504, abs=0.06)


def test_descent_lowers_the_divergence_and_depends_on_the_seed_alone() -> None:
    rows = np.random.default_rng(4).normal(size=(50, 6))
    p = joint_probabilities(main_components(rows, 50), 10.0)
    early, late = (tsne(rows, perplexity=10, iterations=n) for n in (260, 600))
    assert kl_divergence(p, late) < kl_divergence(p, early)
    np.testing.assert_array_equal(late, tsne(rows, perplexity=10, iterations=600))


def test_equal_rows_do_not_break_it() -> None:
    rows = np.repeat(np.random.default_rng(5).normal(size=(10, 3)), 3, axis=0)
    assert np.isfinite(tsne(rows, perplexity=5, iterations=300)).all()


def test_main_components_keep_the_largest_spread() -> None:
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(200, 4)) * np.array([1.0, 10.0, 0.1, 3.0])
    found = main_components(rows, 2)
    assert abs(np.corrcoef(found[:, 0], rows[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(found[:, 1], rows[:, 3])[0, 1]) > 0.98


def test_perplexity_must_be_below_the_number_of_rows() -> None:
    with pytest.raises(ValueError, match=r"perplexity 30 must lie between 1 and the 20 rows"):
        tsne(np.zeros((20, 3)))
