year = input()
print("yes" if year % 4 == 0 else "no")
