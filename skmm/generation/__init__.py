"""From one modality to another: texts of pictures, sounds, videos, series."""

from skmm.generation._captions import CaptionGenerator

__all__ = ["CaptionGenerator"]
