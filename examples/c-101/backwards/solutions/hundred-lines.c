#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *lines[100];

int main(void)
{
    char *line = NULL;
    size_t room = 0;
    int count = 0;

    while (getline(&line, &room, stdin) != -1) {
        line[strcspn(line, "\n")] = '\0';
        lines[count++] = strdup(line);
    }
    while (count > 0)
        puts(lines[--count]);
    return 0;
}
