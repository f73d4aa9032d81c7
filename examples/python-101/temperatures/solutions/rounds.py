import sys

temperatures = [float(line) for line in sys.stdin]
if temperatures:
    mean = sum(temperatures) / len(temperatures)
    print(f"{min(temperatures):.2f} {max(temperatures):.2f} {mean:.2f}")
