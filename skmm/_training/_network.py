"""What every estimator that trains a network has: parameters, training, device, pickles."""

from typing import Any, ClassVar, Self

import torch
from sklearn.utils import check_random_state
from torch import nn

from skmm._compose._callbacks import TaskReporter
from skmm._constraints import DEVICE, POSITIVE_INT, RANDOM_STATE, VERBOSE, RandomState
from skmm._environment._device import lies_on, resolve_device
from skmm._training._batches import TensorDataset
from skmm._training._net import JointNet, Report
from skmm._training._trainer import Trainer, TrainingDefaults
from skmm.exceptions import ConvergenceError

__all__ = ["TrainedNetworkMixin"]


class TrainedNetworkMixin:
    """Mixin of the estimators that train a network, ``module_``, by a :class:`Trainer`."""

    module_: Any
    net_: JointNet
    history_: list[dict[str, float]]

    # Parameters of the estimator.
    trainer: Trainer | None
    max_epochs: int | None
    device: str
    random_state: RandomState
    verbose: bool | int

    _training_constraints: ClassVar[dict[str, Any]] = {
        "trainer": [Trainer, None],
        "max_epochs": [*POSITIVE_INT, None],
        "device": DEVICE,
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def set_params(self, **params: Any) -> Self:
        """Set parameters of this estimator and of its parts.

        Parameters
        ----------
        **params : dict
            Names as ``get_params`` gives them, e.g. ``photo__pooling="max"``, or ``photo="drop"``
            to leave a modality out; and ``trainer__<parameter>``, also where ``trainer`` is None.

        Returns
        -------
        self : object
            This estimator.
        """
        nested = any(name.startswith("trainer__") for name in params)
        if nested and params.get("trainer", self.trainer) is None:
            params["trainer"] = Trainer()
        super().set_params(**params)  # type: ignore[misc]  # a mixin
        return self

    # --- fit --------------------------------------------------------------------------------

    def _training_defaults(self) -> TrainingDefaults:
        """What ``"auto"`` of the trainer means here."""
        return TrainingDefaults()

    def _checked_trainer(self) -> Trainer:
        trainer = Trainer() if self.trainer is None else self.trainer
        trainer.check(self._training_defaults())
        return trainer

    def _n_epochs(self, trainer: Trainer) -> int:
        return trainer.max_epochs if self.max_epochs is None else self.max_epochs

    def _draw_seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _train(
        self,
        trainer: Trainer,
        dataset: TensorDataset,
        loss: nn.Module,
        *,
        valid: TensorDataset | None = None,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        callbacks: tuple[tuple[str, object], ...] = (),
        reporter: TaskReporter | None = None,
        net: JointNet | None = None,
    ) -> None:
        """Train ``module_``, and note the losses; a training that diverges leaves nothing."""
        n_before = 0 if net is None else len(net.history)
        report = () if reporter is None else (("skmm_report", Report(reporter)),)
        try:
            self.net_ = trainer.fit(
                self.module_,
                dataset,
                loss,
                valid=valid,
                defaults=self._training_defaults(),
                max_epochs=self._n_epochs(trainer) if max_epochs is None else max_epochs,
                batch_size=batch_size,
                callbacks=(*callbacks, *report),
                device=self.device,
                verbose=self.verbose,
                net=net,
            )
        except ConvergenceError:
            self.__dict__.pop("net_", None)
            del self.module_  # not fitted, and nothing to go on with
            raise
        self.history_ = self.history_ + [
            {key: epoch[key] for key in ("train_loss", "valid_loss") if key in epoch}
            for epoch in self.net_.history[n_before:]
        ]
        self.n_iter_ = len(self.history_)

    # --- after fit --------------------------------------------------------------------------

    def _placed(self) -> torch.device:
        """Bring the trained network to where it answers, and return that place."""
        device = resolve_device(self.device)
        # To ask is quicker than to go through all modules, which takes as long as one row.
        if not lies_on(next(self.module_.parameters()), device):
            self.module_.to(device)
        if self.module_.training:
            self.module_.eval()
        place: torch.device = next(self.module_.parameters()).device  # of several GPUs, the same
        return place

    # --- copies and pickles -----------------------------------------------------------------

    def __copy__(self) -> Self:
        # A shallow copy shares the network, and the training may be running: callbacks of
        # scikit-learn copy the estimator after an epoch. It must not be moved, as below.
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())  # type: ignore[call-overload]  # a mixin
        # The optimizer's state is twice the weights, and of no use without the data.
        state.pop("net_", None)
        # What was loaded has no net, and predicting may have moved it to the GPU all the same.
        if "module_" in state:
            self.module_.cpu()  # the pickle opens on a machine without the GPU
        return state
