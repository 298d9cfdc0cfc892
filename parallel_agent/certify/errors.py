"""What can go wrong with certifying itself; what is wrong with the tree is in the certificate."""

from __future__ import annotations

__all__ = ["CertifyError"]


class CertifyError(Exception):
    """There can be no certificate: the message says why, and what to do.

    Attributes:
        details: what the processes had printed, tracebacks too; empty if they said nothing.
    """

    def __init__(self, message: str, *, details: str = "") -> None:
        """Both are fit to print."""
        super().__init__(message)
        self.details = details
