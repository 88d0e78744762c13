"""Several generators on equal terms: fitted, sampled and scored side by side."""
