import re
import sys

words = re.findall("[a-z]+", sys.stdin.read().lower())
counts = []
for word in words:
    pair = [-words.count(word), word]
    if pair not in counts:
        counts.append(pair)
for count, word in sorted(counts):
    print(word, -count)
