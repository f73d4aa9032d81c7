"""The program that goes into every container; nothing here is imported by commserver itself.

`runner.py` is copied into each image (see `commserver.engine.images`) and is PID 1 there.
"""
