"""Each protocol in a folder of its own; none knows another."""
