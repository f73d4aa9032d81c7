import re
import sys
from collections import Counter

for word, count in Counter(re.findall("[a-z]+", sys.stdin.read().lower())).most_common():
    print(word, count)
