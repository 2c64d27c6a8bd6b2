"""The benchmarks: what netwarren costs beside its yardsticks. ``python -m bench``, or ``make bench``."""
