import sys

import shapes

for line in sys.stdin:
    kind, *lengths = line.split()
    area = getattr(shapes, kind)
    print(area(*map(float, lengths)))
