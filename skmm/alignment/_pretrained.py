"""Alignment by a pretrained checkpoint with two towers: CLIP, SigLIP, CLAP."""

from os import PathLike
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils import Tags, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from skmm._compose._base import Modalities, Modality
from skmm._compose._block import Block
from skmm._compose._default_encoder import default_encoder
from skmm._constraints import DEVICE, DTYPE, STORE, VERBOSE, StrOptions
from skmm._frame._column import column_names, take_columns
from skmm._frame._types import CellColumn, Frame
from skmm.alignment._base import BaseAlignment, Cells

__all__ = ["PretrainedAlignment"]

_KINDS = ("text", "image", "audio")


class PretrainedAlignment(BaseAlignment[np.ndarray]):
    """Take the space of a pretrained checkpoint with two towers, as it is.

    CLIP [1]_ and SigLIP [2]_ (texts and images) and CLAP [3]_ (texts and audio clips) were trained by
    contrast on very many pairs. Nothing is learned here; each cell goes through its tower, and
    every vector is kept in the store. The tower of a modality that the frame lacks is there too:
    texts can ask for images that have none.

    Parameters
    ----------
    model : str or path, default="openai/clip-vit-base-patch32"
        Name or folder of the checkpoint, as the encoders take it.
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in ``ColumnTransformer``, one column each. ``transformer`` is ``"text"``, ``"image"``,
        ``"audio"`` or ``"drop"``, or such an encoder of your own, whose options hold but for
        ``model`` and ``pooling``. ``"auto"`` infers the modalities from the training frame, and
        takes those that can be texts, images or audio clips.
    all_missing : {"zeros", "raise"}, default="zeros"
        What a row without any modality gets: ``"zeros"`` gives a vector of zeros, ``"raise"``
        raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame that lacks a column of the training frame: raise, or count it as
        absent in every row.
    device : str, default="auto"
        Where the towers run: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Precision of the weights; ``"auto"`` is bfloat16 on a GPU that has it, else float32.
    store : path, EmbeddingStore, False or None, default=None
        Where vectors are kept, as in the encoders.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The modalities used; each transformer is a tower, as a fitted encoder.
    n_components_ : int
        Length of the vectors.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    See Also
    --------
    ContrastiveAlignment : Learns a space from pairs of your own.

    References
    ----------
    .. [1] Radford et al. (2021), "Learning transferable visual models from natural language
       supervision", ICML.
    .. [2] Zhai, Mustafa, Kolesnikov, Beyer (2023), "Sigmoid loss for language image
       pre-training", ICCV.
    .. [3] Wu et al. (2023), "Large-scale contrastive language-audio pretraining with feature
       fusion and keyword-to-caption augmentation", ICASSP.

    Examples
    --------
    >>> from skmm import PretrainedAlignment
    >>> alignment = PretrainedAlignment("openai/clip-vit-base-patch32")
    >>> images = alignment.fit_transform(X[["photo"]])  # doctest: +SKIP
    >>> wanted = alignment.transform_modality(["a photo of a dog"], "text")  # doctest: +SKIP
    >>> (images @ wanted.T).argmax()  # doctest: +SKIP
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseAlignment._parameter_constraints,
        "model": [str, PathLike],
        "modalities": [StrOptions({"auto"}), list, tuple],
        "device": DEVICE,
        "dtype": DTYPE,
        "store": STORE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        model: str | PathLike[str] = "openai/clip-vit-base-patch32",
        modalities: Modalities = "auto",
        *,
        all_missing: Literal["zeros", "raise"] = "zeros",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        store: object = None,
        verbose: bool | int = 0,
    ):
        self.model = model
        self.modalities = modalities
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.dtype = dtype
        self.store = store
        self.verbose = verbose

    def fit(self, X: Frame, y: ArrayLike | None = None) -> Self:
        """Find the modalities' columns and the checkpoint's towers; nothing is learned.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.
        y : None
            Not used.

        Returns
        -------
        self : object
            The fitted alignment.
        """
        self._validate_params()
        X = self._check_frame(X, reset=True)
        if y is not None:
            check_consistent_length(X, y)
        blocks = []
        for modality in self._cells_of(X):
            block = Block(modality)
            block.input_names = column_names(X, modality.columns)
            block.transformer = self._tower(modality).fit(take_columns(X, block.input_names))
            blocks.append(block)
        widths = {block.name: int(block.transformer.n_outputs_) for block in blocks}
        if len(set(widths.values())) > 1:
            raise ValueError(
                f"{type(self).__name__}: the towers of {str(self.model)!r} give vectors of"
                f" different lengths, {widths}, so they share no space. Use a checkpoint of CLIP,"
                " SigLIP or CLAP."
            )
        self._towers = {block.name: block.transformer for block in blocks}
        self.n_components_ = next(iter(widths.values()))
        self._set_modalities(X, blocks)
        if self.all_missing == "raise":
            self._refuse_empty(
                np.column_stack([self._read(name, X).present for name in self._names])
            )
        return self

    def _cells_of(self, X: Frame) -> list[Modality]:
        """Triples whose cells are texts, images or audio clips."""
        owner, found = type(self).__name__, []
        for modality in self._resolve(X):
            kind = getattr(modality.middle, "modality", None)
            if kind not in _KINDS:
                if isinstance(self.modalities, str):
                    continue
                raise ValueError(
                    f"{owner}: modality {modality.name!r} must be an encoder of texts, images or"
                    f" audio clips, got {modality.middle!r}. Name it 'text', 'image' or 'audio'."
                )
            n_columns = len(column_names(X, modality.columns))
            if n_columns > 1:
                raise ValueError(
                    f"{owner}: modality {modality.name!r} has {n_columns} columns, and a cell of"
                    " one is what a tower takes. Make each column a modality."
                )
            found.append(modality)
        if not found:
            raise ValueError(
                f"{owner} found no texts, images or audio clips in X with"
                f" n_features={self.n_features_in_}. Give triples such as ('photo', 'image',"
                " ['photo'])."
            )
        return found

    def _tower(self, modality: Modality) -> Any:
        """Unfitted encoder by the checkpoint's tower for a modality."""
        tower = clone(modality.middle)
        tower.set_params(model=self.model, pooling="pooler")
        if not any(modality.middle is middle for _, middle in self._named_middles):
            tower.set_params(
                device=self.device, dtype=self.dtype, store=self.store, verbose=self.verbose
            )
        return tower

    def _read(self, name: str, X: Frame) -> Cells[np.ndarray]:
        (place,) = self._places[name]
        return _present(self._towers[name].transform(take_columns(X, [place])))

    def _project(self, name: str, values: np.ndarray) -> np.ndarray:
        return values

    def transform_modality(self, X: CellColumn, modality: str) -> np.ndarray:
        """Return the vectors of one modality.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns), Series or list of cells
            Only the column of this modality is needed and looked at; its cells alone are enough.
        modality : str
            Name of the modality; or ``"text"``, ``"image"`` or ``"audio"``, if the frame of
            ``fit`` had none of that name but the checkpoint has such a tower. ``X`` is the cells
            then.

        Returns
        -------
        vectors : ndarray of shape (n_samples, n_components), float32
            Of unit length; NaN for a row that lacks the modality.

        Raises
        ------
        ValueError
            If there is no such modality, or its column is not in ``X``.
        """
        check_is_fitted(self)
        if modality in self._names or modality not in _KINDS:
            return super().transform_modality(X, modality)
        tower = self._tower(Modality(modality, default_encoder(modality), [0]))
        return self._scattered(modality, _present(tower.fit(X).transform(X)))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags


def _present(encoded: ArrayLike) -> Cells[np.ndarray]:
    """Vectors of the rows that have one, an encoder gives NaN for the others."""
    vectors = np.asarray(encoded, dtype=np.float32)
    present = ~np.isnan(vectors[:, 0])
    return Cells(vectors[present], present)
