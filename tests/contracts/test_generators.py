"""Every generator of the table: fit two steps, resume, sample, same seed same image, clear errors.

A new line of the table is covered without a new line here; what makes a method small enough for a
test goes into `SMALL`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from siamese_diffusion.core.errors import ConfigError, OutputError, WeightsError
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.generators import GENERATORS
from siamese_diffusion.generators.estimate import describe
from siamese_diffusion.generators.fitting import fit, plan_fit, resolve_settings
from siamese_diffusion.generators.run_folder import generator_class, load_run
from siamese_diffusion.interchange.export import export_run
from siamese_diffusion.sampling.bulk import sample
from siamese_diffusion.sampling.pair_pipeline import PairPipeline
from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline

NAMES = list(GENERATORS)
TRAINED = [name for name in NAMES if name != "copy-paste"]
COMMON = (
    *("data.size=64", "train.batch_size=4", "train.learning_rate=0.001", "train.warmup_steps=0"),
    *("train.checkpoint_every=1", "train.log_every=1", "train.sample_every=2"),
    *("train.validate_every=2", "train.tensorboard=false", "preview.pairs=2", "preview.steps=2"),
    *("preview.validation_pairs=2", "preview.guidance_scale=2"),
)
SMALL: dict[str, tuple[str, ...]] = {
    "arsdm": (
        *("model.width=32", "model.multipliers=[1,1,1,1]", "model.blocks=1"),
        *("model.attention_factors=[8]", "model.head_channels=16"),
    ),
}

# Trained networks that sampling does not need are not among the weights files.
TRAINING_ONLY = {"adc": "teacher."}


def train(name: str, data: Path, base: Path | None, out: Path, *, steps: int = 2) -> Path:
    overrides = [*COMMON, *SMALL.get(name, ()), f"train.steps={steps}"]
    return fit(
        data,
        out,
        base=base or "tiny",
        generator=name,
        overrides=overrides,
        device="cpu",
        quiet=True,
    )


def base_of(name: str, small: Path) -> Path | None:
    _, settings = resolve_settings(generator=name, overrides=[*COMMON, *SMALL.get(name, ())])
    return None if generator_class(name).own_space(settings) is not None else small


@dataclass(frozen=True)
class Trained:
    """A finished run of one generator."""

    name: str
    run: Path

    @property
    def takes_images(self) -> bool:
        return generator_class(self.name).control == "mask+image"

    def draw(
        self, folder: PairFolder, rows: Sequence[int], seeds: Sequence[int], *, exact: bool = False
    ) -> list[np.ndarray]:
        masks = [folder.mask(row) for row in rows]
        images: list[Image.Image]
        if self.takes_images:
            pairs = PairPipeline.from_pretrained(self.run, device="cpu")
            pictures = [folder.image(row) for row in rows]
            images = pairs(masks, seeds, images=pictures, steps=2, guidance_scale=2, exact=exact)
        else:
            plain = SiameseDiffusionPipeline.from_pretrained(self.run, device="cpu")
            images = plain(masks, seeds, steps=2, guidance_scale=2, exact=exact)
        return [np.asarray(image) for image in images]


@pytest.fixture(scope="module")
def runs(
    phantoms: Path, small_base_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Trained]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: Trained(
            name, train(name, phantoms, base_of(name, small_base_folder), folder / name)
        )
        for name in NAMES
    }  # fmt: skip


@pytest.fixture(scope="module")
def pairs(phantoms: Path) -> PairFolder:
    return PairFolder.open(phantoms, split="val")


@pytest.mark.parametrize("name", NAMES)
def test_a_finished_run_says_what_it_is(name: str, runs: dict[str, Trained]) -> None:
    record = json.loads((runs[name].run / "run.json").read_text())
    assert record["generator"] == name and record["state"] == "complete"
    loaded = load_run(runs[name].run)
    files = {path.stem for path in (runs[name].run / "model").glob("*.safetensors")}
    assert files == set(loaded.generator.modules)
    assert not any(p.requires_grad for p in loaded.generator.objective.parameters())


@pytest.mark.parametrize("name", TRAINED)
def test_every_trained_parameter_is_in_a_weights_file(
    name: str, phantoms: Path, small_base_folder: Path
) -> None:
    asked, settings = resolve_settings(
        generator=name, overrides=[*COMMON, *SMALL.get(name, ())]
    )  # fmt: skip
    plan = plan_fit(
        phantoms, base_of(name, small_base_folder) or "tiny", settings=settings, asked=asked
    )
    generator = generator_class(name).build(settings, plan.base)
    saved = {id(p) for module in generator.modules.values() for p in module.parameters()}
    left_out = TRAINING_ONLY.get(name, "-")
    trained = [p for n, p in generator.trained_parameters() if not n.startswith(left_out)]
    assert trained and all(id(p) in saved for p in trained)
    names = [n for n, _ in generator.trained_parameters()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", TRAINED)
def test_two_steps_move_weights_and_log_terms_validation_and_a_grid(
    name: str, runs: dict[str, Trained]
) -> None:
    run = runs[name].run
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [e for e in events if e["event"] == "train"]
    assert [e["step"] for e in steps] == [1, 2]
    losses = {key for key in steps[0] if key.startswith("loss/")} - {"loss/total"}
    assert losses and all(np.isfinite(e[key]) for e in steps for key in losses)
    assert steps[0]["grad_norm"] > 0
    assert {"validate", "sample"} <= {e["event"] for e in events}
    assert (run / "samples" / "step-00000002.png").is_file()


@pytest.mark.parametrize("name", TRAINED)
def test_an_interrupted_run_ends_with_the_same_bits(
    name: str, runs: dict[str, Trained], phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(runs[name].run, broken)
    # as if killed after the first step
    record = json.loads((broken / "run.json").read_text())
    (broken / "run.json").write_text(
        json.dumps({**record, "state": "training", "model_sha256": None, "step": 0})
    )
    shutil.rmtree(broken / "model")
    shutil.rmtree(broken / "checkpoints" / "step-00000002")
    train(name, phantoms, base_of(name, small_base_folder), broken)
    for file in sorted((runs[name].run / "model").iterdir()):
        assert file.read_bytes() == (broken / "model" / file.name).read_bytes(), file.name


@pytest.mark.parametrize("name", NAMES)
def test_a_complete_run_is_left_alone_and_other_settings_are_refused(
    name: str, runs: dict[str, Trained], phantoms: Path, small_base_folder: Path
) -> None:
    run, base = runs[name].run, base_of(name, small_base_folder)
    before = (run / "run.json").read_bytes()
    train(name, phantoms, base, run)
    assert (run / "run.json").read_bytes() == before
    with pytest.raises(OutputError, match=r"train\.steps: 2 -> 3"):
        train(name, phantoms, base, run, steps=3)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_image_and_another_one_another(
    name: str, runs: dict[str, Trained], pairs: PairFolder
) -> None:
    first, again = (runs[name].draw(pairs, [0], [5])[0] for _ in range(2))
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)
    other = runs[name].draw(pairs, [0], [6])[0]
    assert np.array_equal(first, other) == (name == "copy-paste")


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_batch(
    name: str, runs: dict[str, Trained], pairs: PairFolder
) -> None:
    rows, seeds = [0, 1, 0], [5, 6, 7]
    together = runs[name].draw(pairs, rows, seeds)
    exact = runs[name].draw(pairs, rows, seeds, exact=True)
    for place, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
        alone = runs[name].draw(pairs, [row], [seed])[0]
        assert np.array_equal(exact[place], alone)
        # rounding may differ with the batch: one grey level
        assert np.abs(together[place].astype(int) - alone.astype(int)).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_synthetic_set_has_pairs_and_a_manifest(
    name: str, runs: dict[str, Trained], phantoms: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    images = phantoms if runs[name].takes_images else None
    done = sample(
        runs[name].run,
        phantoms,
        out,
        split="val",
        images=images,
        steps=2,
        device="cpu",
        progress=False,
    )
    made = PairFolder.open(out)
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert done.made == len(made) == len(lines) > 0
    nature = generator_class(name).nature
    assert all(line.get("nature", "synthetic") == nature for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_sampling_takes_images_exactly_where_the_method_needs_them(
    name: str, runs: dict[str, Trained], phantoms: Path, tmp_path: Path
) -> None:
    takes = runs[name].takes_images
    message = f"generator '{name}' samples from " + (
        "masks and their images, but no images" if takes else "masks alone, but the images"
    )
    with pytest.raises(ConfigError, match=message):
        sample(
            runs[name].run,
            phantoms,
            tmp_path / "set",
            images=None if takes else phantoms,
            device="cpu",
            progress=False,
        )
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("name", NAMES)
def test_no_image_can_be_given_to_a_sampler_of_masks(name: str) -> None:
    arguments = inspect.signature(generator_class(name).sample_latents).parameters
    assert "image" not in arguments
    assert "images" not in inspect.signature(SiameseDiffusionPipeline.__call__).parameters


@pytest.mark.parametrize("name", NAMES)
def test_a_dry_run_tells_parameters_and_work(
    name: str, phantoms: Path, small_base_folder: Path
) -> None:
    asked, settings = resolve_settings(
        generator=name, overrides=[*COMMON, *SMALL.get(name, ())]
    )  # fmt: skip
    plan = plan_fit(
        phantoms, base_of(name, small_base_folder) or "tiny", settings=settings, asked=asked
    )
    text = describe(plan)
    assert f"generator: {name}" in text
    assert ("M trained" in text) == (name in TRAINED)
    assert ("nothing to train" in text) == (name not in TRAINED)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_settings_are_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'train\.stepz'; did you mean 'steps'"):
        resolve_settings(generator=name, overrides=["train.stepz=3"])


def test_an_unknown_generator_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown generator 'controlnett'; did you mean"):
        resolve_settings(generator="controlnett")


@pytest.mark.parametrize("name", [n for n in NAMES if n in ("copy-paste", "arsdm")])
def test_a_base_for_a_method_that_takes_none_is_refused(
    name: str, phantoms: Path, small_base_folder: Path
) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' works without a base, but '.*small' was"):
        train(name, phantoms, small_base_folder, Path("never"))


def test_weights_are_those_that_were_trained(runs: dict[str, Trained]) -> None:
    for name in TRAINED:
        state = load_file(next(iter(sorted((runs[name].run / "model").glob("*.safetensors")))))
        assert state and all(bool(value.isfinite().all()) for value in state.values())


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("siamese", "controlnet")])
@pytest.mark.parametrize("to", ["diffusers", "release"])
def test_what_other_programs_cannot_sample_is_not_exported(
    name: str, to: Literal["diffusers", "release"], runs: dict[str, Trained], tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=f"'{name}'"):
        export_run(runs[name].run, tmp_path / "exported", to=to)
    assert not (tmp_path / "exported").exists()
