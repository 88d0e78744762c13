"""Settings of the training loop; free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from siamese_diffusion.core.config import Settings


class TrainSettings(Settings):
    """How long, how fast, how often; defaults are the paper's (Sec. 4.2) where it has a value."""

    steps: int = Field(3000, ge=1)
    """N_iter: optimizer updates. The weight ramp of Eq. 5 ends here."""
    batch_size: int = Field(48, ge=1)
    """Effective batch: micro-batch x accumulation x processes."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Samples in one forward pass of one process; None takes the whole share of a process."""
    learning_rate: float = Field(1e-5, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(1e-8, gt=0)
    warmup_steps: int = Field(0, ge=0)
    decay: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up; cosine ends at zero."""
    max_gradient_norm: float | None = Field(None, gt=0)
    """Clip the global gradient norm; the paper does not."""
    max_gradient_value: float | None = Field(None, gt=0)
    """Clamp every element of the gradient to plus and minus this, before the norm."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit needs the extra `8bit` and a GPU."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """Autocast precision; weights and optimizer stay float32. `auto` is bf16 where the device has
    instructions for it, else fp32."""
    channels_last: bool | None = None
    """Keep convolution weights with the channels innermost; the results differ by rounding. None
    does so where it is faster: on CPUs, and on GPUs with bf16 or fp16."""
    gradient_checkpointing: bool = False
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Keep an exponential average of the trained weights and use it for samples and results."""
    seed: int = 42
    checkpoint_every: int = Field(500, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    log_every: int = Field(10, ge=1)
    validate_every: int = Field(500, ge=0)
    """Steps between validation losses; 0 turns them off."""
    sample_every: int = Field(500, ge=0)
    """Steps between sample grids; 0 turns them off."""
    tensorboard: bool = True
    """Also write TensorBoard events, if it is installed."""

    @model_validator(mode="after")
    def _batch_divides(self) -> TrainSettings:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of "
                f"micro_batch_size {self.micro_batch_size}"
            )
        return self
