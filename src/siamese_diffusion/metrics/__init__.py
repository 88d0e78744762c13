"""Metrics between a real and a synthetic set, by name; one line each. Sees core and data only."""

from siamese_diffusion.core.registry import Registry

METRICS = Registry(
    "metric",
    {
        "fid": "siamese_diffusion.metrics.fid:Fid",
        "kid": "siamese_diffusion.metrics.kid:Kid",
        "clip-i": "siamese_diffusion.metrics.clip_i:ClipI",
        "clip-i-paired": "siamese_diffusion.metrics.clip_i:ClipIPaired",
        "lpips": "siamese_diffusion.metrics.lpips:LpipsPaired",
        "lpips-cross": "siamese_diffusion.metrics.lpips:LpipsCross",
        "lpips-diversity": "siamese_diffusion.metrics.lpips:LpipsDiversity",
        "cmmd": "siamese_diffusion.metrics.cmmd:Cmmd",
        "prdc": "siamese_diffusion.metrics.prdc:PrdcMetric",
        "mixing": "siamese_diffusion.metrics.mixing:Mixing",
    },
)
