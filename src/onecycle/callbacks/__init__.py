"""Callbacks of a run: progress, log, checkpoints, divergence, average, figures, measurements."""
