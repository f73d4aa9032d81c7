class Stack:
    def __init__(self):
        self.things = []

    def __len__(self):
        return len(self.things)

    def push(self, thing):
        self.things.append(thing)

    def pop(self):
        return self.things.pop()

    def top(self):
        return self.things[-1]
