"""Data sets: characters as images, names and properties, and synthetic data with known latents."""

from skmm.datasets._glyphs import load_glyphs, load_glyphs_retrieval
from skmm.datasets._make import make_multimodal_classification, make_multimodal_regression
from skmm.datasets._points import make_point_clouds
from skmm.datasets._views import make_paired_views

__all__ = [
    "load_glyphs",
    "load_glyphs_retrieval",
    "make_multimodal_classification",
    "make_multimodal_regression",
    "make_paired_views",
    "make_point_clouds",
]
