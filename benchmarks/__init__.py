"""Figures, each as a ratio against something measured in the same run: ``nox -s benchmarks``."""
