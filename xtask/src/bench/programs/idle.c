/* A workload that says that it runs, and then does nothing. No C library. */
#define LINE "idle\n"

static long call(long number, long a, long b, long c)
{
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return result;
}

void _start(void)
{
	call(1 /* write */, 1, (long)LINE, sizeof LINE - 1);
	for (;;)
		call(34 /* pause */, 0, 0, 0);
}
