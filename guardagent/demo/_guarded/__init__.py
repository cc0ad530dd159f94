"""The shop behind each of the real Guard libraries, which have to be installed."""
