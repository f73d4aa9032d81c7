from main import PI


def rectangle(width, height):
    return width * height


def circle(radius):
    return PI * radius * radius
