"""Checks of a synthetic set against the real one."""
