/* floor ROOT COMMAND: the least that a container runtime does: the peers' namespaces, mounts,
 * masked paths and change of root, and nothing else (no cgroup, capabilities, seccomp, state on
 * disk, reaper). No runtime with these features can be faster. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define QUIET (MS_NOSUID | MS_NODEV | MS_NOEXEC)

static const char *const nodes[] = { "null", "zero", "full", "random", "urandom", "tty" };
static const char *const masked[] = {
	"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi",
	"timer_list", "timer_stats"
};
static const char *const read_only[] = { "bus", "fs", "irq", "sys", "sysrq-trigger" };

static void check(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
		exit(125);
	}
}

static void put(const char *type, const char *at, unsigned long flags, const char *options)
{
	check(mount(type, at, type, flags, options), at);
}

static void devices(void)
{
	char from[32], to[32];

	put("tmpfs", "dev", MS_NOSUID | MS_NOEXEC, "mode=755,size=65536k");
	for (unsigned i = 0; i < sizeof nodes / sizeof *nodes; i++) {
		snprintf(from, sizeof from, "/dev/%s", nodes[i]);
		snprintf(to, sizeof to, "dev/%s", nodes[i]);
		check(close(open(to, O_CREAT | O_WRONLY | O_CLOEXEC, 0666)), to);
		check(mount(from, to, NULL, MS_BIND, NULL), to);
	}
	mkdir("dev/pts", 0755);
	mkdir("dev/shm", 0755);
	mkdir("dev/mqueue", 0755);
	put("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
	put("tmpfs", "dev/shm", QUIET, "mode=1777,size=65536k");
	put("mqueue", "dev/mqueue", QUIET, NULL);
	check(symlink("/proc/self/fd", "dev/fd"), "dev/fd");
	check(symlink("pts/ptmx", "dev/ptmx"), "dev/ptmx");
}

static void mask(void)
{
	char path[64];
	struct stat stat_;

	for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++) {
		snprintf(path, sizeof path, "proc/%s", masked[i]);
		if (stat(path, &stat_) < 0)
			continue;
		if (S_ISDIR(stat_.st_mode))
			put("tmpfs", path, MS_RDONLY, "size=0k");
		else
			check(mount("/dev/null", path, NULL, MS_BIND, NULL), path);
	}
	put("tmpfs", "sys/firmware", MS_RDONLY, "size=0k");
	for (unsigned i = 0; i < sizeof read_only / sizeof *read_only; i++) {
		snprintf(path, sizeof path, "proc/%s", read_only[i]);
		if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0)
			continue;
		check(mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | QUIET, NULL), path);
	}
}

static void loopback(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	check(ioctl(fd, SIOCSIFFLAGS, &request), "lo");
	close(fd);
}

static void contain(const char *root, char **command)
{
	check(setresgid(0, 0, 0), "setresgid");
	check(setresuid(0, 0, 0), "setresuid");
	check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
	check(mount(root, root, NULL, MS_BIND | MS_REC, NULL), root);
	check(chdir(root), root);
	put("proc", "proc", QUIET, NULL);
	/* Refused where this machine's own /sys is partly covered: then its copy, as crun does. */
	if (mount("sysfs", "sys", "sysfs", QUIET | MS_RDONLY, NULL) < 0)
		check(mount("/sys", "sys", NULL, MS_BIND | MS_REC, NULL), "sys");
	devices();
	mask();
	loopback();
	check(sethostname("bench", 5), "sethostname");
	check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	check(umount2(".", MNT_DETACH), "detach the old root");
	check(chdir("/"), "chdir");
	execv(command[0], command);
	check(-1, command[0]);
}

static void map(pid_t pid, const char *file)
{
	static const char ids[] = "0 100000 65536";
	char path[32];

	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	check(write(fd, ids, sizeof ids - 1), path);
	close(fd);
}

int main(int argc, char **argv)
{
	char go = 0;
	int ready[2], status;

	if (argc < 3)
		return 2;
	check(pipe2(ready, O_CLOEXEC), "pipe");
	long flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
		     CLONE_NEWNET | SIGCHLD;
	long pid = syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
	check(pid, "clone");
	if (pid == 0) {
		check(read(ready[0], &go, 1) - 1, "wait for the id maps");
		contain(argv[1], argv + 2);
	}
	map((pid_t)pid, "uid_map");
	map((pid_t)pid, "gid_map");
	check(write(ready[1], &go, 1), "start");
	check(waitpid((pid_t)pid, &status, 0), "wait");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
