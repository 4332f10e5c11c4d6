"""Alignment by autoencoders around one latent vector."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from skmm._compose._base import Modalities
from skmm._constraints import (
    BATCH_SIZE,
    DEVICE,
    FRACTION,
    LEARNING_RATE,
    NON_NEGATIVE,
    OPEN_FRACTION,
    POSITIVE_INT,
    POSITIVE_REAL,
    RANDOM_STATE,
    VERBOSE,
    RandomState,
)
from skmm._environment._device import on_device, one_thread, resolve_device, seeded
from skmm._training._net import TensorDataset, make_net
from skmm._training._trainer import FEWEST_TO_HOLD_OUT
from skmm.alignment._blocks import BaseDecodingAlignment
from skmm.nets import GivenLoss, SharedAutoencoder

__all__ = ["AutoencoderAlignment"]

_ROWS_AT_ONCE = 4096


class AutoencoderAlignment(BaseDecodingAlignment):
    """Encode every modality into one latent vector from which all of them can be decoded.

    Each modality has an encoder and a decoder. They are trained so that the vector of any one
    modality, and the vector of all together, gives back the features of every modality of the row
    [1]_, and so that vectors of a row are nearer to each other than to those of other rows. So an
    absent modality can be filled in: :meth:`predict_modality`.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in :class:`~skmm.fusion.EarlyFusion`; two or more.
    n_components : int, default=32
        Length of the latent vector.
    hidden_sizes : tuple of int, default=(128,)
        Hidden layers of every encoder, and backwards of every decoder; ``()`` is
        linear, and wants a larger ``learning_rate``.
    dropout : float, default=0.0
        Share of the encoders' hidden units that is zeroed in training.
    reconstruction_weight : float, default=1.0
        Weight of the squared error of a modality that was encoded, its features being of variance
        1.
    cross_weight : float, default=1.0
        Weight of the squared error of a modality that is decoded from another one.
    contrastive_weight : float, default=0.1
        Weight of the contrast between partners and other rows of the batch (InfoNCE).
    temperature : float, default=0.1
        Of the contrast.
    variational : bool, default=False
        Whether each encoder gives a normal distribution, joined by the product of experts [2]_
        (MVAE), instead of a point.
    kl_weight : float, default=0.1
        Weight of the divergence from the prior, for ``variational=True``; 1 is the evidence bound
        for features of residual variance 1.
    max_epochs : int, default=100
        Passes over the training rows, at most.
    batch_size : int, default=128
        Rows a step.
    learning_rate : float, default=1e-3
        Of AdamW.
    weight_decay : float, default=1e-4
        Of AdamW.
    early_stopping : bool, default=True
        Whether to hold out rows and to keep the weights that did best on them. Needs 40 rows.
    validation_fraction : float, default=0.1
        Share of the rows held out.
    n_iter_no_change : int, default=20
        Epochs without a better loss before training ends.
    all_missing : {"prior", "raise"}, default="prior"
        A row that lacks every modality: ``"prior"`` gives zeros, ``"raise"`` raises.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame that lacks a column of the training frame.
    device : str, default="auto"
        Where it computes: ``"auto"``, ``"cpu"``, ``"cuda"``.
    random_state : int, RandomState instance or None, default=None
        Draws weights, order of the rows and held-out rows.
    verbose : int, default=0
        Whether to print a line an epoch.

    Attributes
    ----------
    modalities_ : list of str
        Names, in order.
    transformers_ : list of (name, transformer, columns)
        Fitted transformers.
    module_ : SharedAutoencoder
        The trained network.
    n_components_ : int
        Length of the vectors.
    history_ : list of dict of str to float
        ``train_loss`` and, with early stopping, ``valid_loss`` of each epoch.
    n_iter_ : int
        Epochs trained.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    See Also
    --------
    ContrastiveAlignment : The contrast alone, which is better at search.

    Notes
    -----
    Rows that have one modality only train its encoder and decoder. What ``predict_modality`` gives
    is the mean of what is possible, for the error is squared: of two pictures that fit a text
    equally it is the one in between.

    References
    ----------
    .. [1] Ngiam, Khosla, Kim, Nam, Lee, Ng (2011), "Multimodal deep learning", ICML.
    .. [2] Wu, Goodman (2018), "Multimodal generative models for scalable weakly-supervised
       learning", NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import AutoencoderAlignment
    >>> rng = np.random.default_rng(0)
    >>> shared = rng.normal(size=(300, 2))
    >>> X = pd.DataFrame({
    ...     "sound": list(shared @ rng.normal(size=(2, 6))),
    ...     "scene": list(shared @ rng.normal(size=(2, 9))),
    ... })
    >>> alignment = AutoencoderAlignment([
    ...     ("sound", "passthrough", ["sound"]), ("scene", "passthrough", ["scene"]),
    ... ], n_components=2, random_state=0).fit(X)

    The scene that belongs to a sound:

    >>> found = alignment.predict_modality(X[["sound"]], to="scene")
    >>> truth = np.stack(X["scene"])
    >>> bool(((found - truth) ** 2).mean() < 0.1 * truth.var())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseDecodingAlignment._parameter_constraints,
        "n_components": POSITIVE_INT,
        "hidden_sizes": [list, tuple],
        "dropout": FRACTION,
        "reconstruction_weight": NON_NEGATIVE,
        "cross_weight": NON_NEGATIVE,
        "contrastive_weight": NON_NEGATIVE,
        "temperature": POSITIVE_REAL,
        "variational": ["boolean"],
        "kl_weight": NON_NEGATIVE,
        "max_epochs": POSITIVE_INT,
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "weight_decay": NON_NEGATIVE,
        "early_stopping": ["boolean"],
        "validation_fraction": OPEN_FRACTION,
        "n_iter_no_change": POSITIVE_INT,
        "device": DEVICE,
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        modalities: Modalities = "auto",
        *,
        n_components: int = 32,
        hidden_sizes: Sequence[int] = (128,),
        dropout: float = 0.0,
        reconstruction_weight: float = 1.0,
        cross_weight: float = 1.0,
        contrastive_weight: float = 0.1,
        temperature: float = 0.1,
        variational: bool = False,
        kl_weight: float = 0.1,
        max_epochs: int = 100,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 20,
        all_missing: Literal["prior", "raise"] = "prior",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.n_components = n_components
        self.hidden_sizes = hidden_sizes
        self.dropout = dropout
        self.reconstruction_weight = reconstruction_weight
        self.cross_weight = cross_weight
        self.contrastive_weight = contrastive_weight
        self.temperature = temperature
        self.variational = variational
        self.kl_weight = kl_weight
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _check_settings(self) -> None:
        if not (self.reconstruction_weight or self.cross_weight or self.contrastive_weight):
            raise ValueError(
                f"{type(self).__name__}: reconstruction_weight, cross_weight and"
                " contrastive_weight are all 0, so there is nothing to learn. Give one of them a"
                " positive value."
            )
        if not self.variational:
            self._refuse_unused(["kl_weight"], "variational=False")
        if not self.contrastive_weight:
            self._refuse_unused(["temperature"], "contrastive_weight=0")

    def _fit_blocks(
        self, blocks: dict[str, np.ndarray], present: dict[str, np.ndarray], y: np.ndarray | None
    ) -> None:
        device, seed = resolve_device(self.device), self._draw_seed()
        tensors = _tensors(blocks, present)
        rows = np.flatnonzero(np.any(list(present.values()), axis=0))
        held_out = self._hold_out(rows, seed)
        rows = np.setdiff1d(rows, held_out)
        with seeded(seed), one_thread():
            module = SharedAutoencoder(
                [values.shape[1] for values in blocks.values()],
                self.n_components,
                hidden_sizes=tuple(self.hidden_sizes),
                dropout=self.dropout,
                variational=self.variational,
                reconstruction_weight=self.reconstruction_weight,
                cross_weight=self.cross_weight,
                contrastive_weight=self.contrastive_weight,
                kl_weight=self.kl_weight,
                temperature=self.temperature,
            )
            net = make_net(
                module,
                GivenLoss(),
                valid=_dataset(tensors, held_out, device) if len(held_out) else None,
                max_epochs=self.max_epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                weight_decay=self.weight_decay,
                n_iter_no_change=self.n_iter_no_change,
                callbacks=[],
                device=device,
                verbose=self.verbose,
            )
            net.train(_dataset(tensors, rows, device))
        self.module_ = module.eval()
        self.history_ = [
            {key: epoch[key] for key in ("train_loss", "valid_loss") if key in epoch}
            for epoch in net.history
        ]
        self.n_iter_ = len(self.history_)
        self.n_components_ = self.n_components

    def _hold_out(self, rows: np.ndarray, seed: int) -> np.ndarray:
        """Which rows early stopping looks at; none without it."""
        if not self.early_stopping or len(rows) < FEWEST_TO_HOLD_OUT:
            return rows[:0]
        n_held = max(2, round(len(rows) * self.validation_fraction))
        return np.random.RandomState(seed).permutation(rows)[:n_held]

    # --- after fit ------------------------------------------------------------------------------

    def _project(self, name: str, values: np.ndarray) -> np.ndarray:
        everywhere = np.ones(len(values), dtype=bool)
        return self._latent({name: values}, {name: everywhere})

    def _predict_block(
        self, to: str, blocks: dict[str, np.ndarray], present: dict[str, np.ndarray]
    ) -> np.ndarray:
        return self._latent(blocks, present, decoded=self.modalities_.index(to))

    def _latent(
        self,
        blocks: dict[str, np.ndarray],
        present: dict[str, np.ndarray],
        decoded: int | None = None,
    ) -> np.ndarray:
        """Latent vectors that these modalities give together, or what is decoded from them."""
        on_device(self.module_, resolve_device(self.device))
        device = next(self.module_.parameters()).device  # of several GPUs, the same one
        places = [self.modalities_.index(name) for name in blocks]
        tensors, results = _tensors(blocks, present), []
        with one_thread(), torch.inference_mode():
            for start in range(0, len(tensors["present"]), _ROWS_AT_ONCE):
                part = {
                    name: tensor[start : start + _ROWS_AT_ONCE].to(device)
                    for name, tensor in tensors.items()
                }
                experts = [
                    self.module_.encode(place, part[f"values_{i}"])
                    for i, place in enumerate(places)
                ]
                latent, _ = self.module_.join(experts, part["present"])
                output = latent if decoded is None else self.module_.decode(decoded, latent)
                results.append(output.cpu().numpy())
        return np.concatenate(results)

    def __getstate__(self) -> dict[str, Any]:
        if hasattr(self, "module_"):
            self.module_.cpu()  # the pickle opens on a machine without the GPU
        return dict(super().__getstate__())


def _tensors(blocks: dict[str, np.ndarray], present: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Tensors as the module takes them."""
    values = {f"values_{i}": torch.from_numpy(v) for i, v in enumerate(blocks.values())}
    return {"present": torch.from_numpy(np.column_stack(list(present.values()))), **values}


def _dataset(tensors: dict[str, Tensor], rows: np.ndarray, device: torch.device) -> TensorDataset:
    chosen = torch.as_tensor(rows)
    inputs = {name: tensor[chosen].to(device) for name, tensor in tensors.items()}
    return TensorDataset(inputs, torch.zeros(len(rows), device=device))
