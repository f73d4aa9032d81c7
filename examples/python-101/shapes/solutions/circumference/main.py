import sys

import shapes

for line in sys.stdin:
    kind, *lengths = line.split()
    lengths = map(float, lengths)
    if kind == "rectangle":
        print(shapes.rectangle(*lengths))
    elif kind == "circle":
        print(shapes.circle(*lengths))
    else:
        print("unknown")
