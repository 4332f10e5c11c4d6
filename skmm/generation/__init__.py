"""From one modality to another: texts of pictures or sounds, pictures and series of texts."""

from skmm.generation._captions import CaptionGenerator
from skmm.generation._images import ImageGenerator
from skmm.generation._question_answerer import QuestionAnswerer
from skmm.generation._series import SeriesGenerator

__all__ = ["CaptionGenerator", "ImageGenerator", "QuestionAnswerer", "SeriesGenerator"]
