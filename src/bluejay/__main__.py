"""`python -m bluejay` is `bluejay`."""

from bluejay.cli import main

if __name__ == "__main__":
    main()
