#include <stdio.h>
#include <stdlib.h>

struct node {
    long number;
    struct node *next;
};

static void push(struct node **list, long number)
{
    struct node *node = malloc(sizeof *node);

    if (!node)
        exit(1);
    node->number = number;
    node->next = *list;
    *list = node;
}

static void pop(struct node **list)
{
    struct node *front = *list;

    *list = front->next;
    free(front);
}

int main(void)
{
    struct node *list = NULL;
    char line[100];

    while (fgets(line, sizeof line, stdin)) {
        long number, times = 1, sum = 0;

        if (sscanf(line, "push %ld %ld", &number, &times) >= 1) {
            while (times-- > 0)
                push(&list, number);
        } else if (line[0] == 'p') {
            sscanf(line, "pop %ld", &times);
            while (times-- > 0)
                pop(&list);
        } else if (line[0] == 's') {
            for (struct node *node = list; node; node = node->next)
                sum += node->number;
            printf("%ld\n", sum);
        } else if (line[0] == 'f') {
            if (list)
                printf("%ld\n", list->number);
            else
                printf("empty\n");
        }
    }
    return 0;
}
