import sys

temperatures = [float(line) for line in sys.stdin]
if temperatures:
    print(min(temperatures))
    print(max(temperatures))
    print(sum(temperatures) / len(temperatures))
