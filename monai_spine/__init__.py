"""Graded findings from lumbar spine MRI: levels, conditions and severities in 3D, on MONAI."""

__version__ = "0.1.0"
