"""``python -m harness`` is ``ddbench``."""

from harness.cli import main

if __name__ == "__main__":
    main()
