"""What nbval runs, and what it compares in the cells marked NBVAL_CHECK_OUTPUT: printed text and values, not warnings or drawings."""

# The masters of the labs store no outputs to compare, and tests/test_labs.py runs them, with their own tests, through otter.
collect_ignore = ["labs"]


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr", "image/svg+xml")
