import sys

counts = {}
for word in sys.stdin.read().lower().replace(".", "").replace(",", "").replace("!", "").split():
    counts[word] = counts.get(word, 0) + 1
for word in sorted(counts, key=lambda word: (-counts[word], word)):
    print(word, counts[word])
