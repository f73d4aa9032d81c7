import sys

from shapes import circle, rectangle

PI = 3.141592653589793


def main():
    for line in sys.stdin:
        kind, *lengths = line.split()
        if kind == "rectangle":
            print(rectangle(*map(float, lengths)))
        elif kind == "circle":
            print(circle(*map(float, lengths)))
        else:
            print("unknown")


main()
