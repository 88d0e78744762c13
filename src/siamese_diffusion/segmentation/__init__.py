"""Segmentation networks, trained on real, synthetic or mixed pairs and scored as the paper does."""

from siamese_diffusion.core.registry import Registry

SEGMENTERS = Registry(
    "segmenter",
    {
        "sanet": "siamese_diffusion.segmentation.sanet:SANet",
        "polyp-pvt": "siamese_diffusion.segmentation.polyp_pvt:PolypPVT",
        "ctnet": "siamese_diffusion.segmentation.ctnet:CTNet",
        "unet": "siamese_diffusion.segmentation.unet:UNet",
        "segformer": "siamese_diffusion.segmentation.segformer:SegFormer",
    },
)
