/* launch COMMAND...: runs it with its output thrown away, and prints "NANOSECONDS KIB STATUS":
 * fork to exit, peak resident memory of it or of any one child it waited for, wait status.
 *
 * A program of its own because ru_maxrss outlives exec(2): a child of a large process counts the
 * large process's memory as its own. This one is small and forks. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct timespec start, end;
	struct rusage usage;
	int status, null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (argc < 2 || null < 0)
		return 2;
	clock_gettime(CLOCK_MONOTONIC, &start);
	pid_t pid = fork();
	if (pid < 0)
		return 2;
	if (pid == 0) {
		dup2(null, 0);
		dup2(null, 1);
		execvp(argv[1], argv + 1);
		_exit(127);
	}
	if (wait4(pid, &status, 0, &usage) != pid)
		return 2;
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%lld %ld %d\n",
	       (end.tv_sec - start.tv_sec) * 1000000000LL + end.tv_nsec - start.tv_nsec,
	       usage.ru_maxrss, status);
	return 0;
}
