"""Generators by name: one file and one line each."""

from siamese_diffusion.core.registry import Registry

GENERATORS = Registry(
    "generator",
    {
        "siamese": "siamese_diffusion.generators.siamese:Siamese",
        "copy-paste": "siamese_diffusion.generators.copy_paste:CopyPaste",
        "controlnet": "siamese_diffusion.generators.controlnet:ControlNet",
        "controlnet-mi": "siamese_diffusion.generators.controlnet_mi:ControlNetMI",
        "t2i-adapter": "siamese_diffusion.generators.t2i_adapter:T2IAdapter",
        "arsdm": "siamese_diffusion.generators.arsdm:ArSDM",
        "adc": "siamese_diffusion.generators.adc:ADC",
    },
)
