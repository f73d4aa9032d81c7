from grader import call, check, error, expect, run

with check("right angle", points=5):
    expect(call("triangle.area", 3, 4, 5), 6.0, within=1e-6)

with check("any triangle", points=6):
    expect(call("triangle.area", 2, 3, 4), 2.9047375096555625, within=1e-6)

with check("as a program", points=3):
    expect(run("triangle.py", stdin="3 4 5\n").stdout.split(), ["6.0"])

with check("a side that is too long", points=3, hint="Can you draw one with sides 1, 2 and 8?"):
    expect(call("triangle.area", 1, 2, 8), error("ValueError"))

with check("negative sides", points=3, hidden=True, hint="Can a side be -3 long?"):
    expect(call("triangle.area", -3, -4, -5), error("ValueError"))
