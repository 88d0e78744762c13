"""Networks: the base (Stable Diffusion 1.5 or a small one), hint inputs, the siamese network."""
