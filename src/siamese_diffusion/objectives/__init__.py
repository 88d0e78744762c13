"""Losses, one equation a function."""
