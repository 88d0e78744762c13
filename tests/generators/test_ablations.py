"""The eight settings of Table 5 against each other: terms, hint inputs, gradients."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from reference.literal import disturb, toy_batch, toy_unet
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.generators.fitting import resolve_settings
from siamese_diffusion.generators.settings import PRESETS, SiameseFitSettings
from siamese_diffusion.models.dense_hint import DenseHintInput
from siamese_diffusion.models.siamese import SiameseNetwork
from siamese_diffusion.objectives.siamese import siamese_terms

# Table 5 of the paper: setting -> (DHI, Online-Augmentation, L_c)
TABLE_5 = {
    "1": (False, False, False),
    "2": (True, False, False),
    "3": (False, True, False),
    "4": (False, False, True),
    "5": (False, True, True),
    "6": (True, True, False),
    "7": (True, False, True),
    "ours": (True, True, True),
}


def settings_of(row: str) -> SiameseFitSettings:
    _, settings = resolve_settings(preset=f"table5-{row}")
    assert isinstance(settings, SiameseFitSettings)
    return settings


def test_each_combination_of_the_three_components_has_one_name() -> None:
    assert {name for name in PRESETS if name.startswith("table5-")} == {
        f"table5-{row}" for row in TABLE_5
    }
    assert len(set(TABLE_5.values())) == 8
    for one, other in combinations(TABLE_5, 2):
        assert settings_of(one) != settings_of(other), (one, other)


@pytest.mark.parametrize("row", TABLE_5)
def test_a_setting_has_the_terms_and_gradients_of_its_components(row: str) -> None:
    dense, online, consistency = TABLE_5[row]
    settings = settings_of(row)
    unet = toy_unet()
    torch.manual_seed(0)
    network = SiameseNetwork(unet, settings.model)
    disturb(network)
    assert isinstance(network.control.controlnet_cond_embedding, DenseHintInput) == dense
    batch = toy_batch([100, 700])
    image = batch["image"].requires_grad_()
    terms = siamese_terms(network, batch, k=20, n_iter=30, settings=settings.objective)
    expected = {"loss/mask"}
    expected |= {"loss/augment"} if online else set()
    expected |= {"loss/consistency"} if consistency else set()
    expected |= {"loss/image"} if online or consistency else set()
    assert {name for name in terms if name.startswith("loss/")} == expected
    losses = [value for name, value in terms.items() if name in expected]
    torch.autograd.backward(torch.stack(losses).sum())
    for part in ("control", "decoder"):
        grads = [p.grad for p in getattr(network, part).parameters()]
        assert all(grad is not None and bool(grad.any()) for grad in grads), part
    assert not any(p.grad is not None for p in network.encoder.parameters())
    # L_i alone sends gradient through the image's path
    assert (image.grad is not None and bool(image.grad.any())) == (online or consistency)


def test_settings_that_differ_in_one_component_share_the_value_of_every_other_term() -> None:
    found: dict[str, dict[str, float]] = {}
    for row in TABLE_5:
        settings = settings_of(row)
        torch.manual_seed(0)
        network = SiameseNetwork(toy_unet(), settings.model)
        disturb(network)
        with torch.no_grad():
            terms = siamese_terms(
                network, toy_batch([100, 700]), k=20, n_iter=30, settings=settings.objective
            )
        found[row] = {name: float(value) for name, value in terms.items()}
    for one, other in combinations(TABLE_5, 2):
        if TABLE_5[one][0] == TABLE_5[other][0]:  # the same hint input: the same predictions
            for name in found[one].keys() & found[other].keys():
                assert found[one][name] == pytest.approx(found[other][name], rel=1e-6), name
        else:
            assert found[one]["loss/mask"] != found[other]["loss/mask"]


def test_ours_is_the_default() -> None:
    _, default = resolve_settings()
    assert settings_of("ours") == default


def test_presets_join_and_the_last_wins() -> None:
    _, settings = resolve_settings(preset="small,table5-2")
    assert isinstance(settings, SiameseFitSettings)
    assert settings.data.size == 128 and settings.train.learning_rate == 2e-4
    assert not settings.objective.image_pass and settings.model.hint == "dense"
    _, both = resolve_settings(preset="table5-2,table5-4")
    assert isinstance(both, SiameseFitSettings)
    assert both.model.hint == "sparse" and both.objective.consistency_weight == 1


def test_an_unknown_preset_among_several_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown preset 'tabel5-3'; did you mean 'table5-"):
        resolve_settings(preset="small,tabel5-3")
