from grader import checker

amount, *coins = map(int, checker.input.split())
fewest = int(checker.expected)

try:
    paid = [int(word) for word in checker.output.split()]
except ValueError:
    checker.presentation("print the coins as numbers, and nothing else")

for coin in paid:
    if coin not in coins:
        checker.reject(f"there is no coin of {coin}")
if sum(paid) != amount:
    checker.reject(f"your coins make {sum(paid)}, not {amount}")
if len(paid) > fewest:
    checker.points(3, f"{len(paid)} coins are more than it takes")
checker.accept()
