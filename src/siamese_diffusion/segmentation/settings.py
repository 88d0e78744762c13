"""Settings of segmenters: network and recipe, by default each reference's; free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from siamese_diffusion.core.config import Settings


class SANetSettings(Settings):
    """SANet has no variants; one switch of its inference."""

    probability_correction: bool = True
    """Divide logits by the share of their sign before the sigmoid (moves swept scores only)."""


class PolypPVTSettings(Settings):
    """Where the paper of Polyp-PVT and its release differ; defaults are the release."""

    weighted_bce: bool = False
    """Weight the cross-entropy at boundaries, as the paper writes it."""
    relu: bool = False
    """Call the ReLU behind each convolution and norm, as the paper draws it."""


class CTNetSettings(Settings):
    """Where the paper of CTNet and its release differ; defaults are the release."""

    weighted_bce: bool = False
    """Weight the cross-entropy at boundaries, as the papers write it."""
    relu: bool = False
    """Call the ReLU behind each convolution and norm."""
    contrast_weight: float = Field(0.1, ge=0)
    mine_hard_pixels: bool = False
    """Draw half of the contrasted pixels where the prediction is wrong, as the paper says."""


class UNetSettings(Settings):
    """The slim network of the survey code (1.9 M parameters) or the full-size one (31 M)."""

    variant: Literal["slim", "full"] = "slim"
    width: int | None = Field(None, ge=4)
    """Channels of the first level, doubled at each further one; None is the published 32 or 64."""
    batch_norm: bool = False
    """BatchNorm in the slim network; the full one always has it."""
    classes: Literal[1, 2] = 2


class SegFormerSettings(Settings):
    """The paper does not say which variant."""

    variant: Literal["b0", "b1", "b2", "b3", "b4", "b5"] = "b0"
    classes: Literal[1, 2] = 2


class OptimizerSettings(Settings):
    """How weights move."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    decay_norms: bool = True
    """False keeps norm layers and biases of norms free of weight decay."""
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of sgd, with Nesterov's look-ahead."""


class ScheduleSettings(Settings):
    """How the learning rate moves."""

    name: Literal["constant", "halving", "poly", "plateau"] = "constant"
    milestones: tuple[float, ...] = ()
    """halving: shares of the training after which the rate is halved, each in (0, 1)."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of the training in which the rate rises from zero."""
    power: float = Field(1.0, gt=0)
    """poly: the rate falls to zero as (1 - progress) ** power after the warm-up."""
    factor: float = Field(0.5, gt=0, lt=1)
    """plateau: the rate is multiplied by this."""
    patience: int = Field(10, ge=1)
    """plateau: validations without a lower loss before that."""

    @model_validator(mode="after")
    def _milestones_fit(self) -> ScheduleSettings:
        if any(not 0 < m < 1 for m in self.milestones):
            raise ValueError(f"milestones must lie between 0 and 1, got {list(self.milestones)}")
        return self


class InputSettings(Settings):
    """Sizes of what the network sees."""

    size: int = Field(352, ge=64, multiple_of=32)
    """Side of images in pixels, in training and in evaluation; a multiple of 32 from 64 on."""
    scales: tuple[int, ...] = ()
    """Sides for multi-scale training; empty trains at `size` alone."""
    scale_shares: tuple[float, ...] = ()
    """Probability of each scale, drawn for every batch; empty steps through all of them, one update
    each, with every batch."""
    scale_corners: bool = False
    """Whether resizing to a scale aligns the corner pixels."""
    degenerate: Literal["warn", "drop"] = "warn"
    """What happens to training pairs whose mask is empty or all foreground."""

    @model_validator(mode="after")
    def _scales_fit(self) -> InputSettings:
        wrong = [s for s in self.scales if s < 64 or s % 32]
        if wrong:
            raise ValueError(f"scales must be multiples of 32 from 64 on, got {wrong}")
        if self.scale_shares and len(self.scale_shares) != len(self.scales):
            raise ValueError(
                f"scale_shares has {len(self.scale_shares)} values for {len(self.scales)} scales"
            )
        if self.scale_shares and abs(sum(self.scale_shares) - 1) > 1e-6:
            raise ValueError(f"scale_shares must add up to 1, got {sum(self.scale_shares):g}")
        return self


class AugmentSettings(Settings):
    """Changes drawn once for an image and its mask; masks are always nearest neighbour."""

    flip_horizontal: float = Field(0.0, ge=0, le=1)
    flip_vertical: float = Field(0.0, ge=0, le=1)
    quarter_turns: float = Field(0.0, ge=0, le=1)
    """Probability of a turn by 0, 90, 180 or 270 degrees, each as likely."""
    rotation: float = Field(0.0, ge=0, le=180)
    """Largest angle of a free turn, in degrees; uncovered corners are black background."""
    photometric: bool = False
    """Brightness, contrast, saturation and hue, each with probability 0.5 (image alone)."""


class ColourSettings(Settings):
    """SANet's colour exchange: give an image the colour statistics of another training image."""

    exchange: bool = False
    first_share: float = Field(0.7, ge=0, le=1)
    """Probability that the statistics come from the first pool."""
    column: str = "subset"
    """Column of the set's manifest.csv that says where an image comes from."""
    first_pool: tuple[str, ...] = ("clinicdb",)
    """Values of that column that make up the first pool; all others are the second."""
    synthetic_pool: Literal["second", "origin"] = "second"
    """Pool of synthetic images: the second, as with the unmodified release, or that of the pair
    their mask came from."""


class TrainSettings(Settings):
    """How long, in what pieces."""

    epochs: int = Field(100, ge=1)
    """Passes over the training list; the number of updates follows from its length."""
    steps: int | None = Field(None, ge=1)
    """Number of updates instead, whatever the length of the list."""
    batch_size: int = Field(16, ge=1)
    micro_batch_size: int | None = Field(None, ge=1)
    max_gradient_value: float | None = Field(None, gt=0)
    """Clamp every element of the gradient to plus and minus this."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 0
    checkpoint_every: int = Field(200, ge=1)
    """Updates between checkpoints."""
    keep_checkpoints: int = Field(1, ge=1)
    log_every: int = Field(10, ge=1)
    tensorboard: bool = False


class ValidationSettings(Settings):
    """Pairs that steer nothing but schedule and choice of weights. Test sets never do."""

    split: str = "val"
    """Split list of the real set, if it has one."""
    hold_out: float = Field(0.1, gt=0, lt=0.5)
    """Share of the training pairs held out, by a fixed seed, where something needs validation and
    there is no list."""
    every_epochs: int = Field(1, ge=1)
    select: Literal["last", "best"] = "last"
    """Weights that are kept: the last, or those of the best validation Dice."""


class SegmentSettings(Settings):
    """What every segmenter's run has."""

    model: str
    inputs: InputSettings = InputSettings()
    augment: AugmentSettings = AugmentSettings()
    colour: ColourSettings = ColourSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    train: TrainSettings = TrainSettings()
    validation: ValidationSettings = ValidationSettings()


class SANetRunSettings(SegmentSettings):
    """Recipe of SANet's release."""

    model: str = "sanet"
    network: SANetSettings = SANetSettings()
    inputs: InputSettings = InputSettings(
        size=352, scales=(256, 288, 320, 352), scale_shares=(0.1, 0.2, 0.3, 0.4)
    )
    augment: AugmentSettings = AugmentSettings(
        flip_horizontal=0.5, flip_vertical=0.5, quarter_turns=0.5
    )
    colour: ColourSettings = ColourSettings(exchange=True)
    optimizer: OptimizerSettings = OptimizerSettings(
        name="sgd", learning_rate=0.4, weight_decay=5e-4
    )
    schedule: ScheduleSettings = ScheduleSettings(name="halving", milestones=(63 / 128, 95 / 128))
    train: TrainSettings = TrainSettings(epochs=128, batch_size=64)


class PolypPVTRunSettings(SegmentSettings):
    """Recipe of Polyp-PVT's release."""

    model: str = "polyp-pvt"
    network: PolypPVTSettings = PolypPVTSettings()
    inputs: InputSettings = InputSettings(size=352, scales=(256, 352, 448), scale_corners=True)
    train: TrainSettings = TrainSettings(epochs=99, max_gradient_value=0.5)


class CTNetRunSettings(SegmentSettings):
    """Recipe of CTNet's release."""

    model: str = "ctnet"
    network: CTNetSettings = CTNetSettings()
    inputs: InputSettings = InputSettings(size=352, scales=(256, 352, 448), scale_corners=True)
    train: TrainSettings = TrainSettings(epochs=31, max_gradient_value=0.5)


class UNetRunSettings(SegmentSettings):
    """Recipe of the survey code that the paper's authors name."""

    model: str = "unet"
    network: UNetSettings = UNetSettings()
    inputs: InputSettings = InputSettings(size=224)
    optimizer: OptimizerSettings = OptimizerSettings(name="adam", weight_decay=0)
    schedule: ScheduleSettings = ScheduleSettings(name="plateau")


class SegFormerRunSettings(SegmentSettings):
    """The release's recipe for 160,000 iterations, cut down to small sets (our choice)."""

    model: str = "segformer"
    network: SegFormerSettings = SegFormerSettings()
    inputs: InputSettings = InputSettings(size=384)
    augment: AugmentSettings = AugmentSettings(flip_horizontal=0.5, flip_vertical=0.5)
    optimizer: OptimizerSettings = OptimizerSettings(
        learning_rate=6e-5, weight_decay=0.01, decay_norms=False
    )
    schedule: ScheduleSettings = ScheduleSettings(name="poly", warmup=0.05)


_CPU: dict[str, object] = {
    "inputs": {"size": 96, "scales": (), "scale_shares": ()},
    "augment": {"flip_horizontal": 0.5, "flip_vertical": 0.5},
    "train": {"epochs": 20, "batch_size": 16, "checkpoint_every": 50},
    "schedule": {"name": "poly", "warmup": 0.05},
}

# Named starting points; `paper` is the recipe each network was published with, `small` is for
# CPUs and weights from scratch, and not the paper.
PRESETS: dict[str, dict[str, dict[str, object]]] = {
    "paper": {},
    "small": {
        "": _CPU,  # of a network that has no line of its own
        "sanet": {**_CPU, "optimizer": {"learning_rate": 0.05}},
        "polyp-pvt": {**_CPU, "optimizer": {"learning_rate": 3e-4}},
        "ctnet": {**_CPU, "optimizer": {"learning_rate": 3e-4}},
        "unet": {
            **_CPU,
            "network": {"batch_norm": True, "width": 16},
            "optimizer": {"learning_rate": 2e-3},
        },
        "segformer": {**_CPU, "optimizer": {"learning_rate": 3e-4}},
    },
}
