"""The HTTP door, for platforms that cannot listen on TCP, and the server that all pages share."""
