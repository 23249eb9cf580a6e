"""The two ways in which a delivery fails. Neither message names a patient."""


class DeliveryDelayed(Exception):
    """The receiver could not be reached or is in trouble: try again later."""


class DeliveryRefused(Exception):
    """The receiver does not want this, or it cannot be sent as it is: trying again is no use."""
