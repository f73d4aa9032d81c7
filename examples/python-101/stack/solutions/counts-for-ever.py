class Stack:
    def __init__(self):
        self.newest = None

    def __len__(self):
        count = 0
        while self.newest is not None:
            count += 1
        return count

    def push(self, thing):
        self.newest = (thing, self.newest)

    def pop(self):
        if self.newest is None:
            raise IndexError("the stack is empty")
        thing, self.newest = self.newest
        return thing

    def top(self):
        if self.newest is None:
            raise IndexError("the stack is empty")
        return self.newest[0]
