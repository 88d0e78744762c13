"""`python -m siamese_diffusion` is the command `siamdiff`."""

from siamese_diffusion.cli.main import main

main()
