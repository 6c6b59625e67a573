/* launch COMMAND...: runs it with its output thrown away, and prints "NANOSECONDS KIB STATUS":
 * fork to exit, peak resident memory of it or of any one child it waited for, wait status.
 *
 * launch --crowd COUNT WIDTH NAME COMMAND...: runs it COUNT times, WIDTH at any time, and prints
 * "NANOSECONDS 0 STATUS": first fork to last exit, and the first wait status that was not 0. With a
 * NAME other than "-", each gets NAME and its number as last argument.
 *
 * A program of its own because ru_maxrss outlives exec(2): a child of a large process counts the
 * large process's memory as its own. This one is small and forks. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int null;

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static pid_t start(char **command)
{
	pid_t pid = fork();

	if (pid == 0) {
		dup2(null, 0);
		dup2(null, 1);
		execvp(command[0], command);
		_exit(127);
	}
	return pid;
}

/* The wait status of one that has ended, -1 if none could be waited for. */
static int ended(struct rusage *usage)
{
	int status;

	return wait4(-1, &status, 0, usage) < 0 ? -1 : status;
}

static int crowd(long count, long width, const char *name, int argc, char **argv)
{
	char **command = calloc(argc + 2, sizeof *command), last[64];
	long begun, under_way = 0;
	int status, failed = 0;
	long long start_ns = now();

	if (!command)
		return 2;
	memcpy(command, argv, argc * sizeof *command);
	for (begun = 0; begun < count || under_way > 0;) {
		if (begun < count && under_way < width && !failed) {
			if (strcmp(name, "-") != 0) {
				snprintf(last, sizeof last, "%s-%ld", name, begun);
				command[argc] = last;
			}
			if (start(command) < 0)
				return 2;
			begun++;
			under_way++;
			continue;
		}
		if (under_way == 0)
			break;
		status = ended(NULL);
		if (status < 0)
			return 2;
		under_way--;
		failed = failed ? failed : status;
	}
	printf("%lld 0 %d\n", now() - start_ns, failed);
	return 0;
}

int main(int argc, char **argv)
{
	struct rusage usage;
	long long start_ns;
	int status;

	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (argc < 2 || null < 0)
		return 2;
	if (strcmp(argv[1], "--crowd") == 0 && argc > 5)
		return crowd(atol(argv[2]), atol(argv[3]), argv[4], argc - 5, argv + 5);
	start_ns = now();
	if (start(argv + 1) < 0)
		return 2;
	status = ended(&usage);
	if (status < 0)
		return 2;
	printf("%lld %ld %d\n", now() - start_ns, usage.ru_maxrss, status);
	return 0;
}
