int main(void)
{
    volatile int *nowhere = 0;

    *nowhere = 6;
    return 0;
}
