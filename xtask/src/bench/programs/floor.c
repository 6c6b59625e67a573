/* floor [--in-place] ROOT COMMAND: the least that a container runtime does: namespaces, mounts,
 * masked paths and change of root, and nothing else (no cgroup, capabilities, seccomp, state on
 * disk, reaper). No runtime with these features can be much faster.
 *
 * Without --in-place ROOT is what moat makes of it: seen through the container's id map and
 * copy-on-write, below a tmpfs. With it ROOT itself is the root, as for the other runtimes. */
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
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define QUIET (MS_NOSUID | MS_NODEV | MS_NOEXEC)
#define FIRST_ID 100000

/* A device: its name, major and minor number. */
static const struct {
	const char *name;
	int major, minor;
} nodes[] = { { "null", 1, 3 },	  { "zero", 1, 5 },    { "full", 1, 7 },
	      { "random", 1, 8 }, { "urandom", 1, 9 }, { "tty", 5, 0 } };

static const char *const links[][2] = {
	{ "/proc/self/fd", "fd" },	  { "/proc/self/fd/0", "stdin" },
	{ "/proc/self/fd/1", "stdout" },  { "/proc/self/fd/2", "stderr" },
	{ "/proc/kcore", "core" },	  { "pts/ptmx", "ptmx" },
};
static const char *const masked[] = {
	"proc/acpi",	    "proc/asound",	"proc/interrupts",
	"proc/kcore",	    "proc/keys",	"proc/latency_stats",
	"proc/sched_debug", "proc/scsi",	"proc/timer_list",
	"proc/timer_stats", "sys/devices/virtual/powercap",
	"sys/firmware",	    "sys/kernel/debug"
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

static void make(const char *directory, mode_t mode, uid_t owner)
{
	check(mkdir(directory, mode), directory);
	check(chown(directory, owner, owner), directory);
}

/* /dev but for what belongs to other namespaces. In the machine's first user namespace the devices
 * are made, in another one they are the machine's own. */
static void devices(uid_t owner)
{
	char from[32], to[32], options[64];

	snprintf(options, sizeof options, "mode=755,size=64k,uid=%u,gid=%u", owner, owner);
	put("tmpfs", "dev", MS_NOSUID | MS_NOEXEC, options);
	for (unsigned i = 0; i < sizeof nodes / sizeof *nodes; i++) {
		snprintf(to, sizeof to, "dev/%s", nodes[i].name);
		if (owner) {
			dev_t device = makedev(nodes[i].major, nodes[i].minor);
			check(mknod(to, S_IFCHR | 0666, device), to);
			check(chown(to, owner, owner), to);
			continue;
		}
		snprintf(from, sizeof from, "/dev/%s", nodes[i].name);
		check(close(open(to, O_CREAT | O_WRONLY | O_CLOEXEC, 0666)), to);
		check(mount(from, to, NULL, MS_BIND, NULL), to);
	}
	for (unsigned i = 0; i < sizeof links / sizeof *links; i++) {
		snprintf(to, sizeof to, "dev/%s", links[i][1]);
		check(symlink(links[i][0], to), to);
		check(lchown(to, owner, owner), to);
	}
	make("dev/pts", 0755, owner);
	make("dev/shm", 0755, owner);
	make("dev/mqueue", 0755, owner);
	snprintf(options, sizeof options, "mode=1777,size=64m,uid=%u,gid=%u", owner, owner);
	put("tmpfs", "dev/shm", QUIET, options);
}

static void mask(void)
{
	char path[64];
	struct stat stat_;

	for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++) {
		if (stat(masked[i], &stat_) < 0)
			continue;
		if (S_ISDIR(stat_.st_mode))
			put("tmpfs", masked[i], MS_RDONLY, "size=0k");
		else
			check(mount("/dev/null", masked[i], NULL, MS_BIND, NULL), masked[i]);
	}
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

/* The copy-on-write root below the directory `staging`, in the container's mount namespace but with
 * the machine's own rights, as moat's monitor builds it. */
static void build(const char *root, const char *staging, pid_t container)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/ns/user", container);
	int ids = open(path, O_RDONLY | O_CLOEXEC);
	int lower = (int)syscall(SYS_open_tree, AT_FDCWD, root, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	check(lower, root);
	struct mount_attr map = { .attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (unsigned)ids };
	check(syscall(SYS_mount_setattr, lower, "", AT_EMPTY_PATH, &map, sizeof map), "map owners");
	int container_fd = (int)syscall(SYS_pidfd_open, container, 0);
	check(setns(container_fd, CLONE_NEWNS), "enter the mount namespace");
	check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
	snprintf(path, sizeof path, "mode=755,size=256m,uid=%u,gid=%u", FIRST_ID, FIRST_ID);
	put("tmpfs", staging, MS_NODEV, path);
	check(chdir(staging), staging);
	make("root", 0755, FIRST_ID);
	make("lower", 0755, FIRST_ID);
	make("upper", 0755, FIRST_ID);
	make("work", 0755, FIRST_ID);
	check(syscall(SYS_move_mount, lower, "", AT_FDCWD, "lower", MOVE_MOUNT_F_EMPTY_PATH), "lower");
	put("overlay", "root", MS_NODEV, "lowerdir=lower,upperdir=upper,workdir=work");
	check(chdir("root"), "root");
	devices(FIRST_ID);
}

/* The container's first process, once its ids are mapped. `root` is the root in place, or where it
 * was built. */
static void contain(const char *root, int in_place, char **command)
{
	if (!in_place)
		check(chdir(root), root);
	check(setresgid(0, 0, 0), "setresgid");
	check(setresuid(0, 0, 0), "setresuid");
	if (in_place) {
		check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
		check(mount(root, root, NULL, MS_BIND | MS_REC, NULL), root);
		check(chdir(root), root);
		devices(0);
	}
	put("proc", "proc", QUIET, NULL);
	/* Refused where this machine's own /sys is partly covered: then its copy, as crun does. */
	if (mount("sysfs", "sys", "sysfs", QUIET | MS_RDONLY, NULL) < 0)
		check(mount("/sys", "sys", NULL, MS_BIND | MS_REC, NULL), "sys");
	put("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
	put("mqueue", "dev/mqueue", QUIET, NULL);
	mask();
	loopback();
	check(sethostname("bench", 5), "sethostname");
	check(unshare(CLONE_NEWCGROUP), "cgroup namespace");
	check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	check(umount2(".", MNT_DETACH), "detach the old root");
	check(chdir("/"), "chdir");
	execv(command[0], command);
	check(-1, command[0]);
}

static void map(pid_t pid, const char *file)
{
	char path[32], ids[32];
	int length = snprintf(ids, sizeof ids, "0 %d 65536", FIRST_ID);

	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	check(write(fd, ids, (size_t)length), path);
	close(fd);
}

int main(int argc, char **argv)
{
	char go = 0, staging[] = "/tmp/floor-XXXXXX", built[sizeof staging + 5];
	int ready[2], status, in_place = argc > 1 && strcmp(argv[1], "--in-place") == 0;

	argc -= in_place;
	argv += in_place;
	if (argc < 3)
		return 2;
	if (!in_place)
		check(mkdtemp(staging) ? 0 : -1, staging);
	snprintf(built, sizeof built, "%s/root", staging);
	check(pipe2(ready, O_CLOEXEC), "pipe");
	int home = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	long flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
		     CLONE_NEWNET | SIGCHLD;
	long pid = syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
	check(pid, "clone");
	if (pid == 0) {
		check(read(ready[0], &go, 1) - 1, "wait for the id maps");
		contain(in_place ? argv[1] : built, in_place, argv + 2);
	}
	map((pid_t)pid, "uid_map");
	map((pid_t)pid, "gid_map");
	if (!in_place) {
		build(argv[1], staging, (pid_t)pid);
		check(setns(home, CLONE_NEWNS), "come back");
	}
	check(write(ready[1], &go, 1), "start");
	check(waitpid((pid_t)pid, &status, 0), "wait");
	if (!in_place)
		check(rmdir(staging), staging);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
