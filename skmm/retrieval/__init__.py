"""Retrieval across modalities, zero-shot and few-shot classification."""

from skmm.retrieval._prototypes import PrototypeClassifier
from skmm.retrieval._retriever import CrossModalRetriever
from skmm.retrieval._zero_shot import ZeroShotClassifier

__all__ = ["CrossModalRetriever", "PrototypeClassifier", "ZeroShotClassifier"]
