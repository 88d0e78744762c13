"""To and from other people's files: the authors' release and plain diffusers folders."""
