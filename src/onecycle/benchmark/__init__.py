"""Throughput beside baselines: `python -m onecycle.benchmark`."""
