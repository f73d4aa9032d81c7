"""What is judged, in which order and by whom: no protocol, no database, no Docker, no socket."""
