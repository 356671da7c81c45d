"""`python -m yelpaze` is `yelpaze`."""

from yelpaze.cli.main import main

if __name__ == "__main__":
    main()
