from grader import judge

top, secret, guesses = judge.case_ints()
judge.say(top)
for _ in range(guesses):
    guess = judge.hear_int()
    if guess == secret:
        judge.accept()
    judge.say("higher" if guess < secret else "lower")
judge.reject(f"not found with {guesses} guesses")
