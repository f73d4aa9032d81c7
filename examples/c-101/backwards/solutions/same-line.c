#include <stdio.h>
#include <string.h>

int main(void)
{
    static char line[10000], *lines[10000];
    int count = 0;

    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        lines[count++] = line;
    }
    while (count > 0)
        puts(lines[--count]);
    return 0;
}
