"""The crash certificate: whether a tree survives being killed, at every boundary.

``await certify("refunds.py:tree", message="order 7")`` runs it in processes of their own, kills
each at another boundary, resumes it, and compares. On the command line: ``parallel-agent certify``.
"""

from __future__ import annotations

from parallel_agent.certify.certificate import Again, Boundary, Certificate, CertifyVerdict, Trial
from parallel_agent.certify.engine import Progress, certify
from parallel_agent.certify.errors import CertifyError

__all__ = [
    "Again",
    "Boundary",
    "Certificate",
    "CertifyError",
    "CertifyVerdict",
    "Progress",
    "Trial",
    "certify",
]
