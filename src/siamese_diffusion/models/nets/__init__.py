"""Borrowed network parts, one file each; a header says where each comes from."""
