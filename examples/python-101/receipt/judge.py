from grader import judge


def euros(cents):
    return f"{cents // 100}.{cents % 100:02}"


wanted = []
total = 0
for line in judge.case_lines():
    count, article, price = line.split()
    cents = int(count) * int(price)
    wanted.append(f"{article} {euros(cents)}")
    total += cents
wanted.append(f"total {euros(total)}")

for line in wanted:
    found = judge.hear()
    if found.split() != line.split():
        judge.reject(f"the receipt says {found!r} where it should say {line!r}")
    if found.rstrip() != line:
        judge.presentation(f"one blank between article and price, as in {line!r}")
judge.accept()
