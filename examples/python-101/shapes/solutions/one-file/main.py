import math
import sys

for line in sys.stdin:
    kind, *lengths = line.split()
    if kind == "rectangle":
        print(float(lengths[0]) * float(lengths[1]))
    elif kind == "circle":
        print(math.pi * float(lengths[0]) ** 2)
    else:
        print("unknown")
