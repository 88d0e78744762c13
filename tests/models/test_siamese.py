"""The siamese network against diffusers' stock forward passes, and its sizes for SD 1.5."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from reference.literal import disturb, toy_batch, toy_unet
from siamese_diffusion.models.dense_hint import DenseHintInput
from siamese_diffusion.models.settings import ModelSettings
from siamese_diffusion.models.siamese import Controls, SiameseNetwork


def toy(
    settings: ModelSettings | None = None, *, fresh: bool = False
) -> tuple[UNet2DConditionModel, SiameseNetwork]:
    unet = toy_unet()
    torch.manual_seed(0)
    network = SiameseNetwork(unet, settings or ModelSettings())
    if not fresh:
        disturb(network)
    return unet, network


def stock_controls(network: SiameseNetwork, batch: dict[str, Tensor]) -> Controls:
    downs, middle = network.control(
        batch["z0"], batch["t"], batch["c_text"], batch["mask"], return_dict=False
    )
    return (*downs, middle)


def stock_prediction(
    unet: UNet2DConditionModel, batch: dict[str, Tensor], controls: Controls
) -> Tensor:
    prediction: Tensor = unet(
        batch["z0"],
        batch["t"],
        batch["c_text"],
        down_block_additional_residuals=controls[:-1],
        mid_block_additional_residual=controls[-1],
        return_dict=False,
    )[0]
    return prediction


def our_controls(network: SiameseNetwork, batch: dict[str, Tensor]) -> Controls:
    hint = network.hint(batch["mask"])
    return network.controls(batch["z0"], batch["t"], batch["c_text"], hint)


def our_prediction(
    network: SiameseNetwork, batch: dict[str, Tensor], controls: Controls, *, frozen: bool = False
) -> Tensor:
    encoded = network.encode(batch["z0"], batch["t"], batch["c_text"])
    return network.predict(encoded, batch["c_text"], controls, frozen=frozen)


@pytest.mark.parametrize("latent", [4, 5], ids=["even", "odd"])
@pytest.mark.parametrize("hint", ["dense", "sparse"])
def test_controls_and_prediction_equal_diffusers_bit_for_bit(hint: str, latent: int) -> None:
    unet, network = toy(ModelSettings.model_validate({"hint": hint}))
    batch = toy_batch([3, 700], latent=latent)
    with torch.no_grad():
        ours, stock = our_controls(network, batch), stock_controls(network, batch)
        assert len(ours) == len(stock)
        assert all(torch.equal(a, b) for a, b in zip(ours, stock, strict=True))
        expected = stock_prediction(unet, batch, stock)
        assert torch.equal(our_prediction(network, batch, ours), expected)
        assert torch.equal(our_prediction(network, batch, ours, frozen=True), expected)


def test_with_fresh_zero_convolutions_the_output_is_the_base_models_for_any_mask() -> None:
    unet, network = toy(fresh=True)
    batch = toy_batch([3, 700])
    with torch.no_grad():
        base = unet(batch["z0"], batch["t"], batch["c_text"], return_dict=False)[0]
        for mask in (batch["mask"], torch.zeros_like(batch["mask"]), batch["image"]):
            controls = our_controls(network, {**batch, "mask": mask})
            assert not any(bool(level.any()) for level in controls)
            assert torch.equal(our_prediction(network, batch, controls), base)


def test_a_fresh_control_branch_is_a_copy_of_the_encoder_and_shares_no_weight() -> None:
    unet, network = toy(fresh=True)
    encoder, control = unet.state_dict(), network.control.state_dict()
    copied = [name for name in control if name in encoder]
    assert {name.split(".")[0] for name in copied} == {
        *("conv_in", "time_embedding", "down_blocks", "mid_block"),
    }
    for name in copied:
        assert torch.equal(control[name], encoder[name]), name
        assert control[name].data_ptr() != encoder[name].data_ptr(), name
    rest = {name.split(".")[0] for name in control if name not in encoder}
    assert rest == {
        *("controlnet_cond_embedding", "controlnet_down_blocks", "controlnet_mid_block"),
    }


def test_a_given_control_branch_is_used_as_it_is() -> None:
    unet, first = toy()
    second = SiameseNetwork(unet, ModelSettings(), control=first.control)
    assert second.control is first.control


def test_the_network_shares_the_unets_modules() -> None:
    unet, network = toy()
    assert network.decoder.up_blocks is unet.up_blocks
    assert network.encoder.down_blocks is unet.down_blocks
    ours = {p.data_ptr() for part in (network.encoder, network.decoder) for p in part.parameters()}
    assert ours == {p.data_ptr() for p in unet.parameters()}


@pytest.mark.parametrize("train_decoder", [True, False])
def test_control_and_decoder_are_trained_and_the_encoder_never(train_decoder: bool) -> None:
    _, network = toy(ModelSettings(train_decoder=train_decoder))
    parts = {name.split(".")[0] for name, _ in network.trained_parameters()}
    assert parts == ({"control", "decoder"} if train_decoder else {"control"})
    names = [name for name, _ in network.trained_parameters()]
    assert names == [name for name, _ in network.trained_parameters()]
    assert len(names) == len(set(names))


def test_the_encoder_keeps_no_graph() -> None:
    _, network = toy()
    batch = toy_batch([3])
    encoded = network.encode(batch["z0"], batch["t"], batch["c_text"])
    assert not encoded.middle.requires_grad
    assert not encoded.embedding.requires_grad
    assert not any(skip.requires_grad for skip in encoded.skips)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_frozen_prediction_sends_gradient_to_the_controls_and_none_to_the_decoder(
    checkpointing: bool,
) -> None:
    _, network = toy()
    network.gradient_checkpointing = checkpointing
    batch = toy_batch([3, 700])
    plain: list[Tensor] = []
    for frozen in (False, True):
        network.zero_grad(set_to_none=True)
        controls = tuple(level.detach().requires_grad_() for level in our_controls(network, batch))
        prediction = our_prediction(network, batch, controls, frozen=frozen)
        torch.autograd.backward(prediction.square().sum())
        received = [level.grad for level in controls]
        assert all(grad is not None and bool(grad.any()) for grad in received)
        grads = [p.grad for p in network.decoder.parameters()]
        assert all((grad is None) == frozen for grad in grads)
        if frozen:
            assert all(torch.equal(a, b) for a, b in zip(plain, received, strict=True))  # type: ignore[arg-type]
        plain = [grad for grad in received if grad is not None]


def test_gradient_checkpointing_changes_no_bit() -> None:
    _, network = toy()
    batch = toy_batch([3, 700])
    found: list[dict[str, Tensor]] = []
    for checkpointing in (False, True):
        network.gradient_checkpointing = checkpointing
        network.zero_grad(set_to_none=True)
        loss = our_prediction(network, batch, our_controls(network, batch)).square().mean()
        torch.autograd.backward(loss)
        grads = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        found.append({"loss": loss.detach(), **grads})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_after_a_backward_from_fresh_gradient_is_on_zero_convolutions_and_decoder_only() -> None:
    _, network = toy(fresh=True)
    batch = toy_batch([3, 700])
    prediction = our_prediction(network, batch, our_controls(network, batch))
    torch.autograd.backward(prediction.square().mean())
    moved = {
        name for name, p in network.named_parameters() if p.grad is not None and bool(p.grad.any())
    }
    control = {name for name in moved if name.startswith("control.")}
    assert {name.split(".")[1] for name in control} == {
        *("controlnet_down_blocks", "controlnet_mid_block"),
    }
    assert any(name.startswith("decoder.up_blocks") for name in moved)
    assert {"decoder.head.conv_out.weight", "decoder.head.conv_norm_out.weight"} <= moved
    assert not any(name.startswith("encoder.") for name in moved)


def test_the_hint_enters_once_after_the_first_convolution() -> None:
    _, network = toy()
    batch = toy_batch([3, 700])
    with torch.no_grad():
        hint = network.hint(batch["mask"])
        seen: list[Tensor] = []
        block = network.control.down_blocks[0]
        handle = block.register_forward_pre_hook(
            lambda _module, _args, given: seen.append(given["hidden_states"]), with_kwargs=True
        )
        network.controls(batch["z0"], batch["t"], batch["c_text"], hint)
        handle.remove()
        assert torch.equal(seen[0], network.control.conv_in(batch["z0"]) + hint)


# Stable Diffusion 1.5, sizes only


@pytest.fixture(scope="module")
def full_size() -> SiameseNetwork:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
            attention_head_dim=8,
            cross_attention_dim=768,
        )
        return SiameseNetwork(unet, ModelSettings())


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_sizes_of_stable_diffusion_1_5(full_size: SiameseNetwork) -> None:
    hint = full_size.control.controlnet_cond_embedding
    assert isinstance(hint, DenseHintInput)
    # ControlNet's 361 M count its own hint input of 1.09 M
    assert count(full_size.control) - count(hint) + 1_086_480 == 361_279_120
    assert count(hint) == 3_263_872
    assert count(full_size.decoder) == 510_808_004  # about 511 M
    assert count(full_size.encoder) + count(full_size.decoder) == 859_520_964
    zeros = (full_size.control.controlnet_down_blocks, full_size.control.controlnet_mid_block)
    assert sum(count(part) for part in zeros) == 11_479_680


def test_thirteen_controls_at_384_pixels(full_size: SiameseNetwork) -> None:
    zt, c_text = torch.empty(1, 4, 48, 48), torch.empty(1, 77, 768)
    zt, c_text = zt.to("meta"), c_text.to("meta")
    t = torch.empty(1, dtype=torch.long, device="meta")
    hint = full_size.hint(torch.empty(1, 3, 384, 384, device="meta"))
    controls = full_size.controls(zt, t, c_text, hint)
    assert [(level.shape[1], level.shape[2]) for level in controls] == [
        *((320, 48), (320, 48), (320, 48)),
        *((320, 24), (640, 24), (640, 24)),
        *((640, 12), (1280, 12), (1280, 12)),
        *((1280, 6), (1280, 6), (1280, 6)),
        (1280, 6),
    ]
    prediction = full_size.predict(full_size.encode(zt, t, c_text), c_text, controls)
    assert prediction.shape == zt.shape


def test_352_pixels_work_although_their_latents_do_not_halve_three_times(
    full_size: SiameseNetwork,
) -> None:
    zt = torch.empty(1, 4, 44, 44, device="meta")  # 44, 22, 11, 6
    c_text = torch.empty(1, 77, 768, device="meta")
    t = torch.empty(1, dtype=torch.long, device="meta")
    hint = full_size.hint(torch.empty(1, 3, 352, 352, device="meta"))
    controls = full_size.controls(zt, t, c_text, hint)
    prediction = full_size.predict(full_size.encode(zt, t, c_text), c_text, controls)
    assert prediction.shape == zt.shape
