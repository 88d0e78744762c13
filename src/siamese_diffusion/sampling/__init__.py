"""From a trained run and masks to images: one by one, or as a synthetic data set."""
