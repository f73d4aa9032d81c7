"""Our side of the exercise: makes moves on your stack and writes down what came of them."""

from stack import Stack


def play(moves):
    return make(moves, Stack())


def play_two(moves, others):
    first, second = Stack(), Stack()
    return make(moves, first) + make(others, second)


def make(moves, stack):
    answers = []
    for move in moves:
        match move.split():
            case ["push", number]:
                stack.push(int(number))
            case ["pop"]:
                answers.append(stack.pop())
            case ["top"]:
                answers.append(stack.top())
            case ["len"]:
                answers.append(len(stack))
    return answers
