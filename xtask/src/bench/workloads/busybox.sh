# A static program without glibc's help: Debian's busybox.
set -e
/bin/busybox seq 1 100000 | /bin/busybox md5sum | grep -q dea9193b768319cbb4ff1a137ac03113
/bin/busybox uname -r
