"""The command `siamdiff`: verbs over the library, nothing else."""
