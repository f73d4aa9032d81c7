from math import pi


def rectangle(width, height):
    return width * height


def circle(radius):
    return pi * radius**2
