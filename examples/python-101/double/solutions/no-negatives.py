print(abs(int(input())) * 2)
