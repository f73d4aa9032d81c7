import sys
from collections import Counter


def words(text):
    return "".join(c if c.isalpha() else " " for c in text.lower()).split()


counts = Counter(words(sys.stdin.read()))
for word in sorted(counts, key=lambda word: (-counts[word], word)):
    print(word, counts[word])
