"""`python -m worker` is `cartsync`."""

from worker.cli import main

if __name__ == "__main__":
    main()
