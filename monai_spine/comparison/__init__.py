"""`monai-spine compare`: architectures trained under one budget on one split, and one table with its pictures."""
