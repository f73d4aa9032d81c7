import sys

temperatures = [int(line) for line in sys.stdin]
if temperatures:
    print(min(temperatures), max(temperatures), sum(temperatures) / len(temperatures))
