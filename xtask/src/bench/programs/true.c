/* Exits with 0 at once: no C library, so that what is measured is the runtime's own. */
void _start(void)
{
	__asm__ volatile("syscall" : : "a"(231 /* exit_group */), "D"(0) : "rcx", "r11", "memory");
	__builtin_unreachable();
}
