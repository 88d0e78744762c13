"""The noise schedule, DDIM and guidance as plain functions."""
