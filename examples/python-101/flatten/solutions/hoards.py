def flatten(things):
    for thing in things:
        if not isinstance(thing, list):
            things.extend(things)
    return things
