"""Generators by name: one file and one line each."""

from siamese_diffusion.core.registry import Registry

GENERATORS = Registry(
    "generator",
    {
        "siamese": "siamese_diffusion.generators.siamese:Siamese",
        "controlnet": "siamese_diffusion.generators.controlnet:ControlNet",
    },
)
