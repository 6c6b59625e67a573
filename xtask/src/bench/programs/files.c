/* Reads DIR/large to its end, then walks DIR/tree and looks at every file; how long each took, in
 * nanoseconds. Run on the host and in a guest that shares DIR. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char block[1 << 20];

static long long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static long walk(int directory)
{
	long files = 0;
	DIR *stream = fdopendir(directory);
	if (!stream)
		return 0;
	for (struct dirent *entry; (entry = readdir(stream));) {
		struct stat stat;
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (fstatat(directory, entry->d_name, &stat, AT_SYMLINK_NOFOLLOW))
			return 0;
		if (S_ISDIR(stat.st_mode))
			files += walk(openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY));
		else
			files++;
	}
	closedir(stream);
	return files;
}

int main(int count, char **args)
{
	if (count != 2 || chdir(args[1]))
		return 1;
	int large = open("large", O_RDONLY);
	long long bytes = 0, begun = now();
	for (ssize_t got; (got = read(large, block, sizeof block)) > 0;)
		bytes += got;
	long long read_ns = now() - begun;
	begun = now();
	long files = walk(open("tree", O_RDONLY | O_DIRECTORY));
	printf("read %lld %lld\nwalk %ld %lld\n", bytes, read_ns, files, now() - begun);
	return 0;
}
