"""Cross-validation of the graders: the runs of all folds, and what is said of them together."""
