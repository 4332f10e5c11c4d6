"""Metrics of retrieval, right with ties and with several relevant items, and scorers of them."""

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

__all__ = [
    "hit_rate_at_k",
    "make_retrieval_scorer",
    "mean_average_precision",
    "mean_rank",
    "mean_reciprocal_rank",
    "median_rank",
    "ndcg",
    "recall_at_k",
]
