"""Suites of images on which a trained network shows what its uncertainty is worth."""
