#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char **lines = NULL, *line = NULL;
    size_t room = 0;
    int count = 0;

    while (getline(&line, &room, stdin) != -1) {
        line[strcspn(line, "\n")] = '\0';
        lines = realloc(lines, (count + 1) * sizeof *lines);
        lines[count] = malloc(strlen(line) + 1);
        strcpy(lines[count++], line);
    }
    for (int i = count - 1; i >= 0; i--) {
        puts(lines[i]);
        free(lines[i]);
    }
    for (int i = 0; i < count; i++)
        free(lines[i]);
    free(lines);
    return 0;
}
