import re
import sys
from collections import Counter

counts = Counter(re.findall("[a-z]+", sys.stdin.read().lower()))
ordered = sorted(counts, key=lambda word: (-counts[word], word))
print(" ".join(f"{word} {counts[word]}" for word in ordered))
