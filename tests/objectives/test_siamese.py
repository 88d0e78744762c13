"""Eq. (5)-(9) and (11)-(13): values by hand, who gets gradient, edges, operation counts."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from reference.literal import disturb, toy_batch, toy_unet
from siamese_diffusion.models.settings import ModelSettings
from siamese_diffusion.models.siamese import Controls, Encoded, SiameseNetwork
from siamese_diffusion.objectives.settings import SiameseSettings
from siamese_diffusion.objectives.siamese import (
    augment_weight,
    augmented_denoising,
    image_denoising,
    mask_denoising,
    mix_controls,
    noise_consistency,
    one_step_estimate,
    siamese_terms,
)

CONTROLNET = SiameseSettings(image_pass=False, online_augment=False, consistency_weight=0)


def square(*values: float) -> Tensor:
    """A (1, 1, 2, 2) tensor."""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 2, 2)


def toy(*, fresh: bool = False) -> tuple[UNet2DConditionModel, SiameseNetwork]:
    unet = toy_unet()
    torch.manual_seed(0)
    network = SiameseNetwork(unet, ModelSettings())
    if not fresh:
        disturb(network)
    return unet, network


def terms_of(
    network: SiameseNetwork, t: list[int], *, k: int, settings: SiameseSettings | None = None
) -> dict[str, Tensor]:
    settings = settings or SiameseSettings()
    return siamese_terms(network, toy_batch(t), k=k, n_iter=30, settings=settings)


class Recorder:
    """The network, remembering the controls and predictions it handed out."""

    def __init__(self, network: SiameseNetwork) -> None:
        self._network = network
        self.handed: list[Controls] = []
        self.predictions: list[Tensor] = []

    def hint(self, picture: Tensor) -> Tensor:
        return self._network.hint(picture)

    def encode(self, zt: Tensor, t: Tensor, c_text: Tensor) -> Encoded:
        return self._network.encode(zt, t, c_text)

    def controls(self, zt: Tensor, t: Tensor, c_text: Tensor, hint: Tensor) -> Controls:
        self.handed.append(self._network.controls(zt, t, c_text, hint))
        return self.handed[-1]

    def predict(
        self, encoded: Encoded, c_text: Tensor, controls: Controls, *, frozen: bool = False
    ) -> Tensor:
        eps = self._network.predict(encoded, c_text, controls, frozen=frozen)
        self.predictions.append(eps)
        return eps


def reaches(loss: Tensor, targets: list[Tensor]) -> bool:
    """Whether any gradient other than zero reaches the targets."""
    found = torch.autograd.grad(loss, targets, retain_graph=True, allow_unused=True)
    return any(grad is not None and bool(grad.abs().max() > 0) for grad in found)


# Eq. (5)


def test_controls_are_mixed_level_by_level() -> None:
    c_i = (square(1, 2, 3, 4), square(0, 0, 0, 8))
    c_m = (square(10, 20, 30, 40), square(1, 1, 1, 1))
    first, second = mix_controls(c_i, c_m, w_i=0.5, w_m=2.0)
    assert first.flatten().tolist() == [20.5, 41.0, 61.5, 82.0]
    assert second.flatten().tolist() == [2.0, 2.0, 2.0, 6.0]


def test_mixed_controls_send_gradient_to_the_image_times_w_i_and_none_to_the_mask() -> None:
    c_i, c_m = square(1, 2, 3, 4).requires_grad_(), square(1, 1, 1, 1).requires_grad_()
    torch.autograd.backward(mix_controls((c_i,), (c_m,), w_i=0.25, w_m=1.0)[0].sum())
    assert c_i.grad is not None
    assert c_i.grad.flatten().tolist() == [0.25] * 4
    assert c_m.grad is None


def test_at_the_start_the_mixed_controls_are_the_mask_controls() -> None:
    c_m = (torch.randn(2, 3, 2, 2),)
    assert torch.equal(mix_controls((torch.randn(2, 3, 2, 2),), c_m, w_i=0.0, w_m=1.0)[0], c_m[0])


def test_controls_of_different_depth_are_refused() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        mix_controls((square(1, 2, 3, 4),) * 2, (square(1, 2, 3, 4),), w_i=1, w_m=1)


# Eq. (7), (8), (9)


@pytest.mark.parametrize("loss", [mask_denoising, image_denoising])
def test_denoising_losses_are_mean_squares(loss: object) -> None:
    assert callable(loss)
    assert float(loss(square(1, 2, 3, 4), square(1, 0, 3, 0))) == pytest.approx((4 + 16) / 4)


def test_consistency_is_the_weighted_mean_square() -> None:
    found = noise_consistency(square(1, 2, 3, 4), square(1, 1, 1, 1), w_c=0.5)
    assert float(found) == pytest.approx(0.5 * (0 + 1 + 4 + 9) / 4)


def test_consistency_loss_gives_no_gradient_to_the_mixed_prediction() -> None:
    eps_m, eps_mix = square(1, 2, 3, 4).requires_grad_(), square(0, 0, 0, 0).requires_grad_()
    torch.autograd.backward(noise_consistency(eps_m, eps_mix, w_c=1.0))
    assert eps_m.grad is not None
    assert eps_m.grad.flatten().tolist() == [0.5, 1.0, 1.5, 2.0]
    assert eps_mix.grad is None


def test_a_consistency_weight_of_zero_costs_nothing() -> None:
    assert float(noise_consistency(square(1, 2, 3, 4), square(0, 0, 0, 0), w_c=0.0)) == 0.0


def test_a_negative_consistency_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"w_c must not be negative, got -0\.5"):
        noise_consistency(square(1, 2, 3, 4), square(1, 2, 3, 4), w_c=-0.5)


def test_predictions_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"differ in shape: .*\[1, 1, 2, 2\].*\[1, 1, 2, 1\]"):
        noise_consistency(square(1, 2, 3, 4), torch.zeros(1, 1, 2, 1), w_c=1.0)


# Eq. (11), (12), (13)


def test_one_step_estimate_by_hand() -> None:
    z0_prime = one_step_estimate(square(1, 2, 3, 4), square(1, 1, 0, 0), torch.tensor([0.64]))
    torch.testing.assert_close(z0_prime, square(0.5, 1.75, 3.75, 5.0))


def test_one_step_estimate_gives_no_gradient_to_the_mixed_prediction() -> None:
    zt, eps_mix = square(1, 2, 3, 4).requires_grad_(), square(1, 1, 0, 0).requires_grad_()
    torch.autograd.backward(one_step_estimate(zt, eps_mix, torch.tensor([0.64])).sum())
    assert zt.grad is not None
    assert eps_mix.grad is None


def test_one_step_estimate_with_the_true_noise_returns_the_latent() -> None:
    batch = toy_batch([0, 10, 199])
    a = batch["alpha_bar_t"].view(-1, 1, 1, 1)
    zt = a.sqrt() * batch["z0"] + (1 - a).sqrt() * batch["eps"]
    found = one_step_estimate(zt, batch["eps"], batch["alpha_bar_t"])
    torch.testing.assert_close(found, batch["z0"], rtol=1e-5, atol=1e-6)


def test_samples_outside_the_gate_count_in_the_denominator_of_eq_12() -> None:
    gated = square(1, 2, 3, 4)  # mean square 7.5
    assert float(augmented_denoising(gated, torch.zeros(1, 1, 2, 2), batch_size=5)) == 1.5
    assert float(augmented_denoising(gated, torch.zeros(1, 1, 2, 2), batch_size=1)) == 7.5


def test_the_gate_on_rows_equals_a_mask_on_the_whole_batch() -> None:
    eps_m_prime, eps = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    w_a = torch.tensor([1.0, 0, 0, 1, 1, 0])
    expected = (w_a * (eps_m_prime - eps).square().mean((1, 2, 3))).mean()
    rows = w_a.bool()
    found = augmented_denoising(eps_m_prime[rows], eps[rows], batch_size=6)
    torch.testing.assert_close(found, expected)


def test_the_timestep_gate_is_exclusive() -> None:
    t = torch.tensor([0, 199, 200, 201, 999])
    assert augment_weight(t, k=11, k_tau=10, t_tau=200).tolist() == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert augment_weight(t, k=11, k_tau=10, t_tau=201).tolist() == [True, True, True, False, False]
    assert not augment_weight(t, k=11, k_tau=10, t_tau=0).any()
    assert augment_weight(t, k=11, k_tau=10, t_tau=1000).all()


@pytest.mark.parametrize(("k", "is_open"), [(0, False), (10, False), (11, True)])
def test_the_iteration_gate_opens_after_k_tau(k: int, is_open: bool) -> None:
    w_a = augment_weight(torch.tensor([5]), k=k, k_tau=10, t_tau=200)
    assert w_a.dtype == torch.bool
    assert w_a.tolist() == [is_open]


def test_k_tau_is_a_third_of_the_iterations_even_when_it_is_no_integer() -> None:
    _, network = toy()
    batch = toy_batch([5])
    for k, expected in ((2, 0.0), (3, 1.0)):  # K_tau = 2.67
        terms = siamese_terms(network, batch, k=k, n_iter=8, settings=SiameseSettings())
        assert float(terms["weight/augment"]) == expected


# Eq. (6): which terms, and who gets gradient


def test_the_log_names_of_the_paper_setting() -> None:
    _, network = toy()
    assert list(terms_of(network, [100, 600], k=15)) == [
        *("loss/mask", "loss/image", "loss/consistency"),
        *("weight/image", "loss/augment", "weight/augment"),
    ]


def test_w_i_rises_linearly_and_w_a_is_the_gated_share() -> None:
    _, network = toy()
    terms = terms_of(network, [100, 600, 600, 600], k=15)
    assert float(terms["weight/image"]) == 0.5
    assert float(terms["weight/augment"]) == 0.25


@pytest.mark.parametrize(
    ("loss", "through_c_m", "through_c_i", "through_c_m_prime", "decoder"),
    [
        ("loss/mask", True, False, False, True),
        ("loss/image", False, True, False, False),
        ("loss/consistency", True, False, False, True),
        ("loss/augment", False, False, True, True),
    ],
)
def test_gradient_follows_the_papers_stop_gradients(
    loss: str, through_c_m: bool, through_c_i: bool, through_c_m_prime: bool, decoder: bool
) -> None:
    _, network = toy()
    recorder = Recorder(network)
    settings = SiameseSettings()
    batch = toy_batch([100, 600])
    term = siamese_terms(recorder, batch, k=20, n_iter=30, settings=settings)[loss]
    c_m, c_i, c_m_prime = recorder.handed
    assert reaches(term, list(c_m)) == through_c_m
    assert reaches(term, list(c_i)) == through_c_i
    assert reaches(term, list(c_m_prime)) == through_c_m_prime
    assert reaches(term, list(network.decoder.parameters())) == decoder
    assert reaches(term, list(network.control.parameters()))


def test_the_image_loss_reaches_the_decoder_only_when_asked() -> None:
    _, network = toy()
    settings = SiameseSettings(image_loss_trains_decoder=True)
    term = terms_of(network, [600], k=20, settings=settings)["loss/image"]
    assert reaches(term, list(network.decoder.parameters()))


def test_the_image_loss_reaches_the_control_branch_in_proportion_to_w_i() -> None:
    _, network = toy()
    weights = list(network.control.parameters())
    assert not reaches(terms_of(network, [600], k=0)["loss/image"], weights)
    assert reaches(terms_of(network, [600], k=1)["loss/image"], weights)


def test_no_term_reaches_the_frozen_encoder() -> None:
    _, network = toy()
    terms = terms_of(network, [100, 600], k=20)
    losses = [value for name, value in terms.items() if name.startswith("loss/")]
    torch.autograd.backward(torch.stack(losses).sum())
    assert all(p.grad is None for p in network.encoder.parameters())
    assert all(p.grad is not None for p in network.control.parameters())
    assert all(p.grad is not None for p in network.decoder.parameters())


def test_weights_in_the_log_carry_no_gradient() -> None:
    _, network = toy()
    terms = terms_of(network, [100, 600], k=20)
    assert not terms["weight/image"].requires_grad
    assert not terms["weight/augment"].requires_grad


# Identities


@pytest.mark.parametrize("k", [0, 15, 30])
def test_with_fresh_zero_convolutions_masks_do_not_matter_and_consistency_is_zero(k: int) -> None:
    unet, network = toy(fresh=True)
    batch = toy_batch([100, 600])
    a = batch["alpha_bar_t"].view(-1, 1, 1, 1)
    zt = a.sqrt() * batch["z0"] + (1 - a).sqrt() * batch["eps"]
    with torch.no_grad():
        base = unet(zt, batch["t"], batch["c_text"], return_dict=False)[0]
    settings = SiameseSettings()
    for mask in (batch["mask"], torch.zeros_like(batch["mask"]), torch.ones_like(batch["mask"])):
        recorder = Recorder(network)
        terms = siamese_terms(recorder, {**batch, "mask": mask}, k=k, n_iter=30, settings=settings)
        assert torch.equal(recorder.predictions[0], base)
        assert float(terms["loss/consistency"].detach()) == 0.0


def test_at_k_0_the_mixed_prediction_is_the_mask_prediction_bit_for_bit() -> None:
    _, network = toy()
    recorder = Recorder(network)
    settings = SiameseSettings()
    terms = siamese_terms(recorder, toy_batch([100, 600]), k=0, n_iter=30, settings=settings)
    eps_m, eps_mix = recorder.predictions
    assert torch.equal(eps_m, eps_mix)
    assert float(terms["loss/consistency"].detach()) == 0.0
    assert torch.equal(terms["loss/mask"], terms["loss/image"])


@pytest.mark.parametrize("k", [0, 20])
def test_with_everything_off_the_step_is_controlnets_bit_for_bit(k: int) -> None:
    unet, network = toy()
    batch = {name: value for name, value in toy_batch([100, 600, 3]).items() if name != "image"}
    terms = siamese_terms(network, batch, k=k, n_iter=30, settings=CONTROLNET)
    assert list(terms) == ["loss/mask"]
    torch.autograd.backward(terms["loss/mask"])
    ours = {name: p.grad for name, p in network.named_parameters()}
    network.zero_grad(set_to_none=True)

    a = batch["alpha_bar_t"].view(-1, 1, 1, 1)
    zt = a.sqrt() * batch["z0"] + (1 - a).sqrt() * batch["eps"]
    downs, middle = network.control(
        zt, batch["t"], batch["c_text"], batch["mask"], return_dict=False
    )
    prediction = unet(
        zt,
        batch["t"],
        batch["c_text"],
        down_block_additional_residuals=downs,
        mid_block_additional_residual=middle,
        return_dict=False,
    )[0]
    loss = F.mse_loss(prediction, batch["eps"])
    torch.autograd.backward(loss)
    assert torch.equal(terms["loss/mask"], loss)
    for name, parameter in network.named_parameters():
        mine = ours[name]
        assert (mine is None) == (parameter.grad is None), name
        if mine is not None and parameter.grad is not None:
            assert torch.equal(mine, parameter.grad), name


# Switches


def test_without_image_pass_and_consistency_the_image_is_not_needed_before_k_tau() -> None:
    _, network = toy()
    batch = {name: value for name, value in toy_batch([100, 600]).items() if name != "image"}
    settings = SiameseSettings(image_pass=False, consistency_weight=0)
    terms = siamese_terms(network, batch, k=5, n_iter=30, settings=settings)
    assert list(terms) == ["loss/mask", "weight/image", "loss/augment", "weight/augment"]
    assert float(terms["loss/augment"]) == 0.0


def test_without_image_pass_no_graph_is_kept_and_the_other_terms_keep_their_values() -> None:
    _, network = toy()
    recorder = Recorder(network)
    batch = toy_batch([100, 600])
    full = siamese_terms(network, batch, k=20, n_iter=30, settings=SiameseSettings())
    settings = SiameseSettings(image_pass=False)
    terms = siamese_terms(recorder, batch, k=20, n_iter=30, settings=settings)
    assert "loss/image" not in terms
    assert not recorder.predictions[1].requires_grad
    for name in ("loss/mask", "loss/consistency", "loss/augment"):
        assert torch.equal(terms[name], full[name]), name


def test_without_augmentation_there_is_no_augmentation_term() -> None:
    _, network = toy()
    terms = terms_of(network, [100], k=20, settings=SiameseSettings(online_augment=False))
    assert not [name for name in terms if "augment" in name]


def test_under_no_grad_the_terms_keep_their_values() -> None:
    _, network = toy()
    kept = terms_of(network, [100, 600], k=20)
    with torch.no_grad():
        plain = terms_of(network, [100, 600], k=20)
    for name, value in kept.items():
        assert torch.equal(plain[name], value.detach()), name
        assert not plain[name].requires_grad


@pytest.mark.parametrize("k", [5, 15])
def test_the_names_of_the_terms_do_not_depend_on_which_timesteps_were_drawn(k: int) -> None:
    # Micro-batches and processes average terms by name; one may have no sample below T_tau.
    _, network = toy()
    for changes in ({}, {"image_pass": False}, {"image_pass": False, "consistency_weight": 0}):
        settings = SiameseSettings.model_validate(changes)
        names = [list(terms_of(network, t, k=k, settings=settings)) for t in ([600], [100], [50])]
        assert names[0] == names[1] == names[2]
