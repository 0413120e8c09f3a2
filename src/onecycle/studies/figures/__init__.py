"""Figures of a study, each kind named in its configuration."""
