"""The training of a joint fusion whose modalities may be balanced."""

from typing import Any, ClassVar

from torch import nn

from skmm._constraints import StrOptions
from skmm._training._balance import balance_options, make_balance
from skmm._training._net import TensorDataset
from skmm._training._trainer import TrainingMixin
from skmm.nets import Head

__all__ = ["BalancedTrainingMixin"]


class BalancedTrainingMixin(TrainingMixin):
    """Gives the module what ``balance`` names before a net is built around it."""

    dropout: float
    balance: str | None
    balance_params: dict[str, Any] | None

    _training_constraints: ClassVar[dict[str, Any]] = {
        **TrainingMixin._training_constraints,
        "balance": [StrOptions({"gradient", "auxiliary"}), None],
        "balance_params": [dict, None],
    }

    def _new_net(
        self, callbacks: list[Any], valid: TensorDataset | None, *, max_epochs: int
    ) -> None:
        self._set_balance()
        super()._new_net(callbacks, valid, max_epochs=max_epochs)

    def _balance_options(self) -> dict[str, float]:
        return balance_options(type(self).__name__, self.balance, self.balance_params)

    def _set_balance(self) -> None:
        """Give the module what balances it; a module that goes on keeps its heads."""
        options, old = self._balance_options(), self.module_.balance
        if self.balance is None:
            self.module_.balance = None
        elif old is not None and old.mode == self.balance:
            old.options = options
        else:
            self.module_.balance = make_balance(
                type(self).__name__,
                self.balance,
                options,
                self.module_,
                {name: self._inputs.widths[name] for name in self.module_.modalities},
                self._unimodal_head,
            )

    def _unimodal_head(self, width: int) -> nn.Module:
        """Head over one modality alone."""
        # Where it measures only, it draws nothing: the network above is trained as without it.
        dropout = self.dropout if self.balance == "auxiliary" else 0.0
        own = self._code.head(width, dropout)
        return Head(width, self._code.n_outputs, dropout=dropout) if own is None else own
