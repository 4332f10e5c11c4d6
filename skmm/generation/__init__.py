"""From one modality to another: texts of images or audio clips, images and series of texts."""

from skmm.generation._caption_generator import CaptionGenerator
from skmm.generation._decoding import BeamSearch, GreedySearch, NucleusSampling
from skmm.generation._image_generator import ImageGenerator
from skmm.generation._image_methods import GAN, FlowMatching
from skmm.generation._pretrained_caption_generator import PretrainedCaptionGenerator
from skmm.generation._pretrained_image_generator import PretrainedImageGenerator
from skmm.generation._question_answerer import QuestionAnswerer
from skmm.generation._series_generator import SeriesGenerator

__all__ = [
    "GAN",
    "BeamSearch",
    "CaptionGenerator",
    "FlowMatching",
    "GreedySearch",
    "ImageGenerator",
    "NucleusSampling",
    "PretrainedCaptionGenerator",
    "PretrainedImageGenerator",
    "QuestionAnswerer",
    "SeriesGenerator",
]
