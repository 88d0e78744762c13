"""Folders of image-mask pairs: reading, checking, mask rules and recipes, phantom images."""
