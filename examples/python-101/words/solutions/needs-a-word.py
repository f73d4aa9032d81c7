import re
import sys

words = sorted(re.findall("[a-z]+", sys.stdin.read().lower()))
counts = []
last = words[0]
count = 0
for word in words:
    if word != last:
        counts.append((-count, last))
        last = word
        count = 0
    count += 1
counts.append((-count, last))
for count, word in sorted(counts):
    print(word, -count)
