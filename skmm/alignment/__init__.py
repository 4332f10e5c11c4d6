"""Alignment: transformers that map several modalities into one common space."""

from skmm.alignment._adversarial import AdversarialAlignment
from skmm.alignment._autoencoder import AutoencoderAlignment
from skmm.alignment._cca import CCAAlignment
from skmm.alignment._contrastive import ContrastiveAlignment
from skmm.alignment._contrastive_losses import InfoNCE, MaxMargin, SigLIP, Triplet
from skmm.alignment._pretrained import PretrainedAlignment

__all__ = [
    "AdversarialAlignment",
    "AutoencoderAlignment",
    "CCAAlignment",
    "ContrastiveAlignment",
    "InfoNCE",
    "MaxMargin",
    "PretrainedAlignment",
    "SigLIP",
    "Triplet",
]
