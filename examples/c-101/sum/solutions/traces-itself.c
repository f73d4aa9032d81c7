#include <stdio.h>
#include <sys/ptrace.h>

int main(void)
{
    long long number, sum = 0;

    if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0)
        return 1;
    while (scanf("%lld", &number) == 1)
        sum += number;
    printf("%lld\n", sum);
    return 0;
}
