"""Metrics of retrieval, with ties and several relevant items, of texts and of images.

Each has a scorer for ``cross_val_score`` and ``GridSearchCV``.
"""

from skmm.metrics._answers import vqa_accuracy
from skmm.metrics._images import frechet_distance, paired_cosine
from skmm.metrics._retrieval import (
    hit_rate_at_k,
    mean_average_precision,
    mean_rank,
    mean_reciprocal_rank,
    median_rank,
    ndcg,
    recall_at_k,
)
from skmm.metrics._scorers import make_image_scorer, make_retrieval_scorer, make_text_scorer
from skmm.metrics._text_metrics import chrf, cider, corpus_bleu, exact_match, rouge_l

__all__ = [
    "chrf",
    "cider",
    "corpus_bleu",
    "exact_match",
    "frechet_distance",
    "hit_rate_at_k",
    "make_image_scorer",
    "make_retrieval_scorer",
    "make_text_scorer",
    "mean_average_precision",
    "mean_rank",
    "mean_reciprocal_rank",
    "median_rank",
    "ndcg",
    "paired_cosine",
    "recall_at_k",
    "rouge_l",
    "vqa_accuracy",
]
