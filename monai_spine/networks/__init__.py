"""Architectures that MONAI lacks."""
