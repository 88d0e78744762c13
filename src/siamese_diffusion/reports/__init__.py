"""Reports: one self-contained HTML page from what runs and synthetic sets wrote to disk.

Never imports torch; every number comes from a file.
"""

from __future__ import annotations

from siamese_diffusion.reports.html import write_report

__all__ = ["write_report"]
