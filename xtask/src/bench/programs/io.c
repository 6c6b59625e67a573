// What a guest and the machine around it both do to a disk and a network: `io disk FILE` and
// `io net ADDRESS` measure, `io serve` is the other end of the network. As PID 1 of a guest it
// measures /dev/vda and eth0. One line for each figure: `io: NAME VALUE`.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DISK (64L << 20)
#define BLOCK (1L << 20)
#define PAGE 4096
#define SMALL 2000
#define STREAM (64L << 20)
#define CALLS 1000
#define PORT 5001
#define SERVER "192.0.2.1"

static char *buffer;

static void fail(const char *what) {
    printf("io: failed: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

// MiB in each second of `ms`.
static void rate(const char *name, long bytes, double ms) {
    printf("io: %s %.2f\n", name, bytes / 1048576.0 / ms * 1e3);
}

static void each(const char *name, long count, double ms) {
    printf("io: %s %.2f\n", name, ms * 1e3 / count);
}

static off_t place(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (off_t)((*seed >> 33) % (DISK / PAGE)) * PAGE;
}

// Past the page cache where `flags` say so: a guest's own would answer in the device's place.
static void disk(const char *path, int flags) {
    int file = open(path, O_RDWR | flags);
    if (file < 0) fail(path);
    // Once to have it in the memory of the machine around.
    for (off_t at = 0; at < DISK; at += BLOCK)
        if (pread(file, buffer, BLOCK, at) != BLOCK) fail("read");
    double begun = now();
    for (off_t at = 0; at < DISK; at += BLOCK)
        if (pread(file, buffer, BLOCK, at) != BLOCK) fail("read");
    rate("read_mib_s", DISK, now() - begun);
    begun = now();
    for (off_t at = 0; at < DISK; at += BLOCK)
        if (pwrite(file, buffer, BLOCK, at) != BLOCK) fail("write");
    rate("write_mib_s", DISK, now() - begun);
    uint64_t seed = 1;
    begun = now();
    for (long n = 0; n < SMALL; n++)
        if (pread(file, buffer, PAGE, place(&seed)) != PAGE) fail("read");
    each("read_4k_us", SMALL, now() - begun);
    begun = now();
    for (long n = 0; n < SMALL; n++)
        if (pwrite(file, buffer, PAGE, place(&seed)) != PAGE) fail("write");
    each("write_4k_us", SMALL, now() - begun);
    close(file);
}

static int reach(const char *address, char wish) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    inet_pton(AF_INET, address, &to.sin_addr);
    int one = 1, sock = socket(AF_INET, SOCK_STREAM, 0);
    if (sock < 0) fail("socket");
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(sock, (struct sockaddr *)&to, sizeof to)) fail("connect");
    if (write(sock, &wish, 1) != 1) fail("write");
    return sock;
}

// All `length` bytes of `sock`, in pieces.
static void take(int sock, long length) {
    while (length > 0) {
        long count = read(sock, buffer, length < BLOCK ? length : BLOCK);
        if (count <= 0) fail("read of a socket");
        length -= count;
    }
}

static void give(int sock, long length) {
    while (length > 0) {
        long count = write(sock, buffer, length < BLOCK ? length : BLOCK);
        if (count <= 0) fail("write of a socket");
        length -= count;
    }
}

static void net(const char *address) {
    int sock = reach(address, 's');
    double begun = now();
    give(sock, STREAM);
    take(sock, 1);
    rate("send_mib_s", STREAM, now() - begun);
    close(sock);
    sock = reach(address, 'r');
    begun = now();
    take(sock, STREAM);
    rate("receive_mib_s", STREAM, now() - begun);
    close(sock);
    sock = reach(address, 'c');
    begun = now();
    for (long n = 0; n < CALLS; n++) {
        give(sock, 1);
        take(sock, 1);
    }
    each("call_us", CALLS, now() - begun);
    close(sock);
}

static void serve(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 8)) fail("listen");
    // Who waits for this line may begin.
    printf("io: ready 1\n");
    for (;;) {
        int sock = accept(listener, NULL, NULL);
        if (sock < 0) fail("accept");
        setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        char wish = 0, byte;
        if (read(sock, &wish, 1) != 1) fail("wish");
        if (wish == 's') take(sock, STREAM), give(sock, 1);
        if (wish == 'r') give(sock, STREAM);
        if (wish == 'c')
            while (read(sock, &byte, 1) == 1)
                if (write(sock, &byte, 1) != 1) break;
        close(sock);
    }
}

static void address(struct ifreq *request, const char *text) {
    struct sockaddr_in *at = (struct sockaddr_in *)&request->ifr_addr;
    at->sin_family = AF_INET;
    inet_pton(AF_INET, text, &at->sin_addr);
}

static void guest(void) {
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    int console = open("/dev/console", O_RDWR);
    if (console >= 0) dup2(console, 1);
    disk("/dev/vda", O_DIRECT);
    struct ifreq request = {.ifr_name = "eth0"};
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    address(&request, "192.0.2.2");
    if (ioctl(sock, SIOCSIFADDR, &request)) fail("address");
    address(&request, "255.255.255.0");
    if (ioctl(sock, SIOCSIFNETMASK, &request)) fail("mask");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(sock, SIOCSIFFLAGS, &request)) fail("up");
    net(SERVER);
    printf("io: done 1\n");
    reboot(RB_AUTOBOOT);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    buffer = aligned_alloc(PAGE, BLOCK);
    memset(buffer, 'x', BLOCK);
    if (getpid() == 1) guest();
    if (argc == 3 && !strcmp(argv[1], "disk")) disk(argv[2], 0);
    else if (argc == 3 && !strcmp(argv[1], "net")) net(argv[2]);
    else if (argc == 2 && !strcmp(argv[1], "serve")) serve();
    else return 2;
    return 0;
}
