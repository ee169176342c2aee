"""`python -m tpstream`: the command line."""

from tpstream.cli import main

if __name__ == "__main__":
    main()
