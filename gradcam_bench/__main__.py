"""`python -m gradcam_bench` is the `gradcam-bench` command."""

import sys

from gradcam_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
