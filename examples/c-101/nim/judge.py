from grader import judge

[left] = judge.case_ints()
while True:
    judge.say(left)
    taken = judge.hear_int()
    if not 1 <= taken <= min(3, left):
        judge.reject(f"of {left} matches, {taken} cannot be taken")
    left -= taken
    if left == 0:
        judge.accept()
    ours = left % 4 or 1
    left -= ours
    if left == 0:
        judge.reject(f"we have taken the last {ours} and won")
