"""What nbval compares in the cells marked NBVAL_CHECK_OUTPUT: printed text and values, not warnings or drawings."""


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr", "image/svg+xml")
