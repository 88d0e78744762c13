"""The efficient step against the literal one: losses, every gradient, and how often it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from reference.literal import disturb, literal_terms, toy_batch, toy_unet
from siamese_diffusion.models.settings import ModelSettings
from siamese_diffusion.models.siamese import SiameseNetwork
from siamese_diffusion.objectives.settings import SiameseSettings
from siamese_diffusion.objectives.siamese import siamese_terms

TERMS = ("loss/mask", "loss/image", "loss/consistency", "loss/augment")


def problem() -> tuple[torch.nn.Module, SiameseNetwork]:
    """A U-Net and a network that shares its modules, so that gradients land on the same leaves."""
    unet = toy_unet()
    torch.manual_seed(0)
    network = SiameseNetwork(unet, ModelSettings())
    disturb(network)
    return unet, network


def named(name: str, message: str) -> str:
    return f"{name}: {message}"


def gradients(network: SiameseNetwork, terms: dict[str, Tensor]) -> dict[str, Tensor | None]:
    network.zero_grad(set_to_none=True)
    torch.autograd.backward(torch.stack([terms[name] for name in TERMS]).sum())
    return {name: None if p.grad is None else p.grad for name, p in network.named_parameters()}


def assert_steps_agree(
    t: list[int],
    *,
    k: int,
    n_iter: int = 30,
    checkpointing: bool = False,
    settings: SiameseSettings | None = None,
    latent: int = 4,
) -> dict[str, Tensor]:
    settings = settings or SiameseSettings()
    unet, network = problem()
    network.gradient_checkpointing = checkpointing
    batch = toy_batch(t, latent=latent)
    ours = siamese_terms(network, batch, k=k, n_iter=n_iter, settings=settings)
    our_gradients = gradients(network, ours)
    theirs = literal_terms(
        unet,
        network.control,
        batch,
        k=k,
        n_iter=n_iter,
        w_m=settings.mask_weight,
        w_c=settings.consistency_weight,
        k_tau=settings.augment_start_fraction * n_iter,
        t_tau=settings.augment_below_timestep,
        image_loss_trains_decoder=settings.image_loss_trains_decoder,
    )
    their_gradients = gradients(network, theirs)
    ours = {name: value.detach() for name, value in ours.items()}
    for name in TERMS:
        torch.testing.assert_close(ours[name], theirs[name].detach(), msg=partial(named, name))
    for name, theirs_at in their_gradients.items():
        ours_at = our_gradients[name]
        assert (ours_at is None) == (theirs_at is None), name
        if ours_at is None or theirs_at is None:
            continue
        # The order of sums differs (rows taken out of the batch, one backward instead of two
        # through the decoder), so float32's tolerance holds against the tensor's largest value.
        limit = 1e-5 * float(theirs_at.abs().max()) + 1e-9
        torch.testing.assert_close(ours_at, theirs_at, rtol=0, atol=limit, msg=partial(named, name))
    return ours


@pytest.mark.parametrize("decoder", [False, True], ids=["theta_copied", "decoder_trained"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("k", [5, 20], ids=["before_k_tau", "after_k_tau"])
def test_losses_and_all_gradients_equal_the_literal_step(
    k: int, checkpointing: bool, decoder: bool
) -> None:
    settings = SiameseSettings(image_loss_trains_decoder=decoder)
    terms = assert_steps_agree(
        [150, 700, 20, 200], k=k, checkpointing=checkpointing, settings=settings
    )
    assert (float(terms["loss/augment"]) > 0) == (k == 20)
    assert float(terms["weight/augment"]) == (0.5 if k == 20 else 0.0)


@pytest.mark.parametrize("k", [0, 10, 11, 30], ids=["start", "k_tau", "past_k_tau", "end"])
def test_the_steps_agree_at_the_ends_of_training_and_around_k_tau(k: int) -> None:
    terms = assert_steps_agree([150, 700], k=k)
    assert (float(terms["loss/augment"]) > 0) == (k > 10)


@pytest.mark.parametrize("t", [[1, 2], [500, 999]], ids=["all_gated", "none_gated"])
def test_the_steps_agree_when_all_or_no_samples_are_gated(t: list[int]) -> None:
    assert_steps_agree(t, k=20)


def test_the_steps_agree_at_other_weights_and_the_gate_of_the_release() -> None:
    settings = SiameseSettings(
        mask_weight=0.7,
        consistency_weight=2.5,
        augment_start_fraction=0,
        augment_below_timestep=201,
    )
    terms = assert_steps_agree([200, 201, 900], k=1, settings=settings)
    torch.testing.assert_close(terms["weight/augment"], torch.tensor(1 / 3))


def test_the_steps_agree_on_latents_that_do_not_halve_evenly() -> None:
    assert_steps_agree([150, 700], k=20, latent=5)


def test_the_literal_step_leaves_the_frozen_encoder_without_gradient() -> None:
    unet, network = problem()
    terms = literal_terms(unet, network.control, toy_batch([150, 700]), k=20, n_iter=30)
    found = gradients(network, terms)
    assert all(grad is None for name, grad in found.items() if name.startswith("encoder."))
    assert all(grad is not None for name, grad in found.items() if not name.startswith("encoder."))


# What the efficient step saves


@contextmanager
def counted(network: SiameseNetwork) -> Iterator[dict[str, list[int]]]:
    """Batch sizes of every call of the encoder, hint, control branch and decoder."""
    places: dict[str, nn.Module] = {
        "encoder": network.encoder.conv_in,
        "hint": network.control.controlnet_cond_embedding,
        "control": network.control.conv_in,
        "decoder": network.decoder.head.conv_out,
    }
    batches: dict[str, list[int]] = {name: [] for name in places}
    handles = [
        place.register_forward_hook(
            lambda _module, _given, out, name=name: batches[name].append(len(out))
        )
        for name, place in places.items()
    ]
    try:
        yield batches
    finally:
        for handle in handles:
            handle.remove()


def step(
    network: SiameseNetwork, t: list[int], *, k: int, settings: SiameseSettings | None = None
) -> None:
    settings = settings or SiameseSettings()
    siamese_terms(network, toy_batch(t), k=k, n_iter=30, settings=settings)


@pytest.mark.parametrize(
    ("k", "t"), [(5, [100, 600, 20, 999]), (20, [200, 600, 200, 999])], ids=["k", "t"]
)
def test_outside_the_gate_the_encoder_runs_once_and_each_control_once(k: int, t: list[int]) -> None:
    _, network = problem()
    with counted(network) as batches:
        step(network, t, k=k)
    assert batches == {"encoder": [4], "hint": [4, 4], "control": [4, 4], "decoder": [4, 4]}


def test_inside_the_gate_only_the_gated_rows_run_again_and_their_hints_are_reused() -> None:
    _, network = problem()
    with counted(network) as batches:
        step(network, [100, 600, 999, 700, 20], k=20)
    assert batches == {
        "encoder": [5, 2],
        "hint": [5, 5],
        "control": [5, 5, 2],
        "decoder": [5, 5, 2],
    }


def test_the_controlnet_setting_runs_each_part_once() -> None:
    controlnet = SiameseSettings(image_pass=False, online_augment=False, consistency_weight=0)
    _, network = problem()
    with counted(network) as batches:
        step(network, [100, 600], k=20, settings=controlnet)
    assert batches == {"encoder": [2], "hint": [2], "control": [2], "decoder": [2]}
