"""Metrics of retrieval, right with ties and with several relevant items, of texts; and scorers."""

from skmm.metrics._retrieval import (
    hit_rate_at_k,
    mean_average_precision,
    mean_rank,
    mean_reciprocal_rank,
    median_rank,
    ndcg,
    recall_at_k,
)
from skmm.metrics._scorer import make_retrieval_scorer
from skmm.metrics._text import chrf, cider, corpus_bleu, exact_match, rouge_l
from skmm.metrics._text_scorer import make_text_scorer

__all__ = [
    "chrf",
    "cider",
    "corpus_bleu",
    "exact_match",
    "hit_rate_at_k",
    "make_retrieval_scorer",
    "make_text_scorer",
    "mean_average_precision",
    "mean_rank",
    "mean_reciprocal_rank",
    "median_rank",
    "ndcg",
    "recall_at_k",
    "rouge_l",
]
