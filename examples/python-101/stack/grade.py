from grader import call, check, error, expect

with check("push and pop", points=3):
    expect(call("moves.play", ["push 1", "pop"]), [1])

with check("last in, first out", points=4):
    expect(call("moves.play", ["push 1", "push 2", "pop", "push 3", "pop", "pop"]), [2, 3, 1])

with check("how many", points=4, hint="Python's len() asks a class for its __len__."):
    expect(call("moves.play", ["len", "push 5", "push 6", "len", "pop", "len"]), [0, 2, 6, 1])

with check("the top stays", points=3):
    expect(call("moves.play", ["push 7", "push 8", "top", "top", "pop"]), [8, 8, 8])

with check("nothing to pop", points=3, hint="What does an empty stack raise?"):
    expect(call("moves.play", ["push 1", "pop", "pop"]), error("IndexError"))

with check("two stacks", points=3, hidden=True, hint="Where does each stack keep its things?"):
    expect(call("moves.play_two", ["push 1", "push 2"], ["push 3", "pop", "len"]), [3, 0])
