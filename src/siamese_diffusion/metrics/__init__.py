"""Metrics between a real and a synthetic set. Sees core and data only."""
