"""Hold the project's classes against numbers computed by the authors' release at toy width.

    python tools/check_parity.py FOLDER

A folder called after a segmenter is checked by `parity_segmenters.py`, one called `arsdm` by
`parity_arsdm.py`; what follows is of others.
FOLDER holds `meta.json` (toy configuration and losses), `weights_fp16.safetensors` (in the
release's names) and `vectors.safetensors`. The weights go through the code behind
`siamdiff import`; every stored number is computed again, one line each with its relative error.
Exits with 1 if any is above its tolerance: 1e-4 for activations, losses and gradient norms, 1e-3
for the end points of 50 DDIM steps.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from parity_arsdm import check as check_arsdm
from parity_segmenters import check_segmenter
from siamese_diffusion.diffusion.ddim import ddim_sample, ddim_timesteps
from siamese_diffusion.diffusion.guidance import guide
from siamese_diffusion.diffusion.schedule import add_noise, scaled_linear_alpha_bar
from siamese_diffusion.interchange.release import network_from_release, read_release
from siamese_diffusion.models.dense_hint import DenseHintInput
from siamese_diffusion.models.ldm_names import release_names, unet_config
from siamese_diffusion.models.siamese import SiameseNetwork
from siamese_diffusion.objectives.settings import SiameseSettings
from siamese_diffusion.objectives.siamese import mix_controls, siamese_terms
from siamese_diffusion.segmentation import SEGMENTERS

TOLERANCE, DDIM_TOLERANCE = 1e-4, 1e-3
# Gradients below this share of the largest in float64 are zero in exact arithmetic (a bias before
# a normalisation): what float32 leaves of them is rounding, on either side.
EXACT_ZERO, ROUNDING = 1e-12, 1e-6


class Line(NamedTuple):
    """One comparison: what, its relative error, what is allowed, and a remark."""

    name: str
    error: float
    tolerance: float
    remark: str = ""


class Problem:
    """The toy network and its inputs.

    Args:
        folder: With `meta.json`, weights and vectors.
        dtype: float32 as the release, or float64 to see what is exactly zero.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        self.config = self.meta["config"]
        self.stored = load_file(folder / "vectors.safetensors")
        self.state = read_release(folder / "weights_fp16.safetensors")
        self.dtype = dtype
        self.n_iter = int(self.config["n_iter"])
        side = self.stored["z0"].shape[-1]
        unet = UNet2DConditionModel(**unet_config(self.config, sample_size=side))
        self.network: SiameseNetwork = network_from_release(self.state, unet).network.to(dtype)
        self.alpha_bar = scaled_linear_alpha_bar(
            beta_start=self.config["linear_start"],
            beta_end=self.config["linear_end"],
            num_timesteps=self.config["timesteps"],
        )
        self.t = self.stored["t"].long()
        names = ("z0", "eps", "mask", "image")
        self.batch = {name: self.stored[name].to(dtype) for name in names}
        self.batch |= {
            "t": self.t,
            "alpha_bar_t": self.alpha_bar[self.t].to(dtype),
            "c_text": self.stored["context"].to(dtype),
        }

    @property
    def settings(self) -> SiameseSettings:
        """The release's objective; its gate includes T_tau."""
        return SiameseSettings(
            mask_weight=self.config["w_m"],
            consistency_weight=self.config["w_c"],
            augment_start_fraction=self.config["K_tau"] / self.n_iter,
            augment_below_timestep=self.config["T_tau"] + 1,
        )

    def terms(self, k: int, settings: SiameseSettings | None = None) -> dict[str, Tensor]:
        return siamese_terms(
            self.network,
            self.batch,
            k=k,
            n_iter=self.n_iter,
            settings=settings or self.settings,
        )

    def gradients(self, k: int) -> dict[str, Tensor]:
        """Gradients of the total loss by the release's parameter names."""
        self.network.zero_grad(set_to_none=True)
        terms = self.terms(k)
        losses = torch.stack([v for name, v in terms.items() if name.startswith("loss/")])
        torch.autograd.backward(losses.sum())
        unet_cfg = unet_config(self.config, sample_size=1)
        named = dict(self.network.named_parameters())
        names = release_names(named, unet_cfg, hint=self.network.settings.hint)
        return {names[n]: p.grad for n, p in named.items() if p.grad is not None}

    def eps_m(self) -> Tensor:
        """The mask prediction at the stored inputs."""
        net, c_text = self.network, self.batch["c_text"]
        zt = add_noise(self.batch["z0"], self.batch["eps"], self.batch["alpha_bar_t"])
        with torch.no_grad():
            c_m = net.controls(zt, self.t, c_text, net.hint(self.batch["mask"]))
            return net.predict(net.encode(zt, self.t, c_text), c_text, c_m)


def check(folder: Path) -> Iterator[Line]:
    """Every stored number, computed again."""
    problem = Problem(folder)
    yield from _activations(problem)
    yield from _losses(problem)
    exact = Problem(folder, torch.float64)
    for k in sorted({int(n.split(".")[1][1:]) for n in _stored(problem, "grad_norm.")}):
        yield from _gradient_norms(problem, exact, k)
    yield from _after_step(problem)
    yield from _ddim(Problem(folder))  # the step has moved the weights


def _activations(p: Problem) -> Iterator[Line]:
    net, batch, c_text = p.network, p.batch, p.batch["c_text"]
    yield _line("alphas_cumprod", p.alpha_bar, p.stored["alphas_cumprod"])
    zt = add_noise(batch["z0"], batch["eps"], batch["alpha_bar_t"])
    yield _line("z_t", zt, p.stored["z_t"])
    dhi = net.control.controlnet_cond_embedding
    assert isinstance(dhi, DenseHintInput)
    with torch.no_grad():
        for name in ("mask", "image"):
            stored = p.stored[f"dhi_features_{name}"]
            yield _line(f"dhi_features_{name}", dhi.features(batch[name]), stored)
        encoded = net.encode(zt, p.t, c_text)
        controls = {
            short: net.controls(zt, p.t, c_text, net.hint(batch[name]))
            for short, name in (("c_m", "mask"), ("c_i", "image"))
        }
        for short, tensors in controls.items():
            for i, tensor in enumerate(tensors):
                yield _line(f"{short}.{i}", tensor, p.stored[f"{short}.{i}"])
        yield _line("eps_m", net.predict(encoded, c_text, controls["c_m"]), p.stored["eps_m"])
        for name in _stored(p, "eps_mix."):
            k = int(name.split(".k")[1])
            w_i, w_m = k / p.n_iter, p.config["w_m"]
            c_mix = mix_controls(controls["c_i"], controls["c_m"], w_i=w_i, w_m=w_m)
            yield _line(name, net.predict(encoded, c_text, c_mix, frozen=True), p.stored[name])


def _losses(p: Problem) -> Iterator[Line]:
    words = {
        "loss_simple_mask": "loss/mask",
        "loss_simple_image": "loss/image",
        "loss_simple_mask_2_image": "loss/consistency",
        "loss_simple_mask_regularization": "loss/augment",
    }
    everywhere = p.settings.model_copy(update={"augment_below_timestep": p.config["timesteps"]})
    for k, stored in p.meta["losses"].items():
        with torch.no_grad():
            terms = p.terms(int(k))
            # the release logs this one before the gate on t
            ungated = p.terms(int(k), everywhere)["loss/augment"]
        total = sum(float(v) for name, v in terms.items() if name.startswith("loss/"))
        for name, value in stored.items():
            ours = float(terms[words[name]]) if name in words else total
            if name.endswith("regularization"):
                ours = float(ungated)
            yield _line(f"losses.k{k}.{name}", torch.tensor(ours), torch.tensor(float(value)))


def _gradient_norms(p: Problem, exact: Problem, k: int) -> Iterator[Line]:
    ours, exactly = p.gradients(k), exact.gradients(k)
    prefix = f"grad_norm.k{k}."
    names = [name.removeprefix(prefix) for name in _stored(p, prefix)]
    largest = max(float(g.norm()) for g in exactly.values())
    for extra in sorted(ours.keys() - set(names)):
        yield Line(f"{prefix}{extra}", float("inf"), TOLERANCE, "no such gradient in the release")
    for name in names:
        stored = p.stored[prefix + name].float()
        norm = ours[name].norm() if name in ours else torch.zeros(())
        if name in exactly and float(exactly[name].norm()) < EXACT_ZERO * largest:
            share = max(float(norm), float(stored)) / largest
            yield Line(prefix + name, share, ROUNDING, "zero in exact arithmetic")
        else:
            yield _line(prefix + name, norm, stored)


def _after_step(p: Problem) -> Iterator[Line]:
    """One AdamW step from the gradients of the last k in the file.

    The document calls it k = 2000; the numbers are those of k = N_iter (relative error 3e-6
    against 2e-3), whose gradients the release's script computed last.
    """
    k = max(int(name) for name in p.meta["losses"])
    p.gradients(k)
    options = p.meta["optimizer"]
    b1, b2 = (float(x) for x in options["betas"].strip("()").split(","))
    trained = [parameter for _, parameter in p.network.trained_parameters()]
    torch.optim.AdamW(
        trained,
        lr=float(options["lr"]),
        betas=(b1, b2),
        eps=float(options["eps"]),
        weight_decay=float(options["weight_decay"]),
    ).step()
    yield _line(
        "after_step.eps_m", p.eps_m(), p.stored["after_step.eps_m"], remark=f"step at k={k}"
    )


def _ddim(p: Problem) -> Iterator[Line]:
    net, c_text = p.network, p.batch["c_text"]
    empty = p.stored["uncond_context"].to(p.dtype).expand_as(c_text)
    contexts = torch.cat([empty, c_text])
    with torch.no_grad():
        hints = net.hint(p.batch["mask"]).repeat(2, 1, 1, 1)

    def predict(zt: Tensor, t: int, scale: float) -> Tensor:
        zt, times = zt.repeat(2, 1, 1, 1), torch.full((2 * len(zt),), t)
        controls = net.controls(zt, times, contexts, hints)
        eps_empty, eps_text = net.predict(
            net.encode(zt, times, contexts), contexts, controls
        ).chunk(2)
        return guide(eps_empty, eps_text, scale)

    for name in _stored(p, "ddim50."):
        guided = partial(predict, scale=float(name.split("cfg")[1]))
        end = ddim_sample(guided, p.stored["x_T"].to(p.dtype), p.alpha_bar, 50)
        yield _line(name, end, p.stored[name], tolerance=DDIM_TOLERANCE)
    times = torch.tensor(ddim_timesteps(50, len(p.alpha_bar)))
    stored = p.stored["ddim_timesteps"].long().sort(descending=True).values
    yield _line("ddim_timesteps", times.float(), stored.float(), tolerance=0.0)


def _stored(p: Problem, prefix: str) -> list[str]:
    return sorted(name for name in p.stored if name.startswith(prefix))


def _line(
    name: str, ours: Tensor, stored: Tensor, *, tolerance: float = TOLERANCE, remark: str = ""
) -> Line:
    ours, stored = ours.detach().double(), stored.double()
    if ours.shape != stored.shape:
        shapes = f"shape {tuple(ours.shape)}, stored {tuple(stored.shape)}"
        return Line(name, float("inf"), tolerance, shapes)
    size = float(stored.norm())
    error = float((ours - stored).norm())
    return Line(name, error / size if size > 0 else error, tolerance, remark)


def lines(folder: Path) -> Iterator[Line]:
    """The comparisons of a folder, by what is named like it."""
    name = folder.resolve().name
    if name in SEGMENTERS:
        for a in check_segmenter(folder.resolve()):
            yield Line(a.name, a.error, a.tolerance)
    elif name == "arsdm":
        for b in check_arsdm(folder):
            yield Line(b.name, b.error, b.tolerance, b.remark)
    else:
        yield from check(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="with meta.json, weights and vectors")
    options = parser.parse_args()
    if not (options.folder / "meta.json").is_file():
        print(f"error: '{options.folder}' has no meta.json", file=sys.stderr)
        sys.exit(2)
    torch.set_num_threads(1)  # at toy width threads cost more than they bring
    failed = count = 0
    worst = Line("", 0.0, TOLERANCE)
    for line in lines(options.folder):
        count += 1
        ok = line.error <= line.tolerance
        failed += not ok
        if line.error / max(line.tolerance, 1e-30) > worst.error / worst.tolerance:
            worst = line
        remark = f"  ({line.remark})" if line.remark else ""
        print(f"{'ok  ' if ok else 'FAIL'} {line.error:9.2e}  {line.name}{remark}")
    print(
        f"{count - failed} of {count} agree; closest to its limit: {worst.name} ({worst.error:.2e})"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
