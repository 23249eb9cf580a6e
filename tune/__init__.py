"""Hyperparameter sweeps over the training stage."""
