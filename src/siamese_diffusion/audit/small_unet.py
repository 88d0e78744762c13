"""The small segmenter under the name that audits use; it lives with the other networks."""

from siamese_diffusion.models.small_unet import SmallUNet, segmentation_loss

__all__ = ["SmallUNet", "segmentation_loss"]
