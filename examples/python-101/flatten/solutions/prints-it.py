def flatten(things):
    for thing in things:
        if isinstance(thing, list):
            flatten(thing)
        else:
            print(thing)
