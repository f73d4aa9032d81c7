#include <stdio.h>

static long list[1000];
static long length;

int main(void)
{
    char line[100];

    while (fgets(line, sizeof line, stdin)) {
        long number, times = 1, sum = 0;

        if (sscanf(line, "push %ld %ld", &number, &times) >= 1) {
            while (times-- > 0)
                list[length++] = number;
        } else if (line[0] == 'p') {
            sscanf(line, "pop %ld", &times);
            length = times < length ? length - times : 0;
        } else if (line[0] == 's') {
            for (long i = 0; i < length; i++)
                sum += list[i];
            printf("%ld\n", sum);
        } else if (line[0] == 'f' && length > 0) {
            printf("%ld\n", list[length - 1]);
        } else {
            printf("empty\n");
        }
    }
    return 0;
}
