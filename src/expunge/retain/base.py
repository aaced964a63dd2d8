"""The contract of a retain loss."""

from expunge.losses.base import Loss


class RetainLoss(Loss):
    """Minimised on retain rows: its `loss` is low while the model still answers them as before."""

    slot = "retain"
