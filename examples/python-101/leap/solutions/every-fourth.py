print("no" if int(input()) % 4 else "yes")
