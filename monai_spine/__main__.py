"""`python -m monai_spine`, where the command `monai-spine` is not on the path."""

from monai_spine.cli import main

if __name__ == "__main__":
    main()
