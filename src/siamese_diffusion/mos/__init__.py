"""Rating study: do experts take synthetic images for real ones (MOS of Table 1)?

Stages meet on disk: a blinded study folder, an append-only store of ratings, an analysis.
FastAPI and SQLAlchemy (extra `web`) are imported only by the modules `web` and `store`.
"""
