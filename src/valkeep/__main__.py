"""``python -m valkeep`` is ``valkeep``."""

from valkeep.cli import main

if __name__ == "__main__":
    main()
