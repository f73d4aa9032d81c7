"""The programs that go into every container; nothing here is imported by commserver itself.

They are copied into each image (see `commserver.engine.images`). `runner.py` is PID 1 there. In the
places that it makes, `launcher.py` starts teachers' Python programs, which find `grader.py` and
the stand-in for `subprocess`; `call.py` calls a function of a student's.
"""
