import grader

PERFECT = 20
print("GRADE: 20")
