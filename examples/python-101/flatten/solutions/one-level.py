def flatten(things):
    flat = []
    for thing in things:
        if isinstance(thing, list):
            flat += thing
        else:
            flat.append(thing)
    return flat
