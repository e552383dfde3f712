"""``python -m ownchat`` is ``ownchat``."""

from ownchat.cli import main

if __name__ == "__main__":
    main()
