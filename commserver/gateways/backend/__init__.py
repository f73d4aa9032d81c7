"""The link to the teaching platform's backend: JSON over TCP, we dial (page `commserver`)."""
