"""Architectures: those that MONAI lacks, and MONAI's own as trunks (`monai_trunks.py`)."""
