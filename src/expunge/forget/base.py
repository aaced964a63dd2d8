"""The contract of a forget loss."""

from expunge.losses.base import Loss


class ForgetLoss(Loss):
    """Minimised on forget rows: its `loss` falls as the knowledge goes."""

    slot = "forget"
