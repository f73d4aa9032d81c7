from grader import call, check, expect, say

with check("nothing", points=2):
    expect(call("flatten.flatten", []), [])

with check("already flat", points=2):
    expect(call("flatten.flatten", [3, 1, 2]), [3, 1, 2])

with check("a list in a list", points=4):
    expect(call("flatten.flatten", [1, [2, 3], [], 4]), [1, 2, 3, 4])

with check("lists in lists in lists", points=4, hint="What is in a list that was in a list?"):
    expect(call("flatten.flatten", [1, [2, [3, [4, 5], [[]]]], 6]), [1, 2, 3, 4, 5, 6])

nested = ["bottom"]
for depth in range(100):
    nested = [depth, nested]
with check("a hundred deep", points=4, hidden=True, hint="How deep can your function go?"):
    expect(call("flatten.flatten", nested), [*reversed(range(100)), "bottom"])

with check("brackets in texts", points=4, hidden=True, hint="A text is not a list."):
    expect(call("flatten.flatten", ["a[0]", ["[]", "b"]]), ["a[0]", "[]", "b"])

say("Recursion takes a while to get used to. So does recursion.")
