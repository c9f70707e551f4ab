"""Sparse Subspace Variational Inference: Bayesian networks that stay sparse from the first step on.

Importing this module imports nothing else: the workflow reads `ssvi.spec` without loading torch.
"""

__version__ = "0.1.0"
