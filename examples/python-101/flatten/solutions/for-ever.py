def flatten(things):
    first, rest = flatten(things[:1]), flatten(things[1:])
    return first + rest
