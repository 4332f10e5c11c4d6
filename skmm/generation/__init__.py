"""From one modality to another: texts of pictures or sounds, pictures and series of texts."""

from skmm.generation._caption_generator import CaptionGenerator
from skmm.generation._image_generator import ImageGenerator
from skmm.generation._question_answerer import QuestionAnswerer
from skmm.generation._series_generator import SeriesGenerator

__all__ = ["CaptionGenerator", "ImageGenerator", "QuestionAnswerer", "SeriesGenerator"]
