"""The noise schedule and step rule of the authors' sampler, in diffusers' terms."""

from __future__ import annotations

# Settings under which diffusers' DDIM takes the steps of the authors' sampler: 1, 21, ..., 981 and
# the schedule's first alpha-bar at the end.
SD_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "prediction_type": "epsilon",
}
