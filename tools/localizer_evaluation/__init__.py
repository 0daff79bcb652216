"""The parts of `tools/evaluate_localizer.py`: experiments, looks at held-out scans, tables."""
