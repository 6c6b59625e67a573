#!/bin/sh
# The bed's first process, in the initramfs: drivers, the host's files as root, then stage2.
# Port 3 of the virtio console carries one word per line to xtask: init, run, exit N, or fail WHY.
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
while read -r module || [ -n "$module" ]; do
    insmod "/modules/$module.ko" || echo "bed: module $module does not load"
done < /modules/order
# The kernel names the ports by the place of their device on the bus.
until port=$(echo /dev/vport*p3) && [ -c "$port" ]; do usleep 5000; done
exec 3> "$port"
echo init >&3

mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576,cache=loose root /root || {
    echo "fail the host's files cannot be mounted" >&3
    poweroff -f
}
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount --move /dev /root/dev
umount /proc
mkdir -p /root/dev/pts /root/dev/shm /root/dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts /root/dev/pts
ln -sf pts/ptmx /root/dev/ptmx
ln -sf /proc/self/fd /root/dev/fd
ln -sf fd/0 /root/dev/stdin
ln -sf fd/1 /root/dev/stdout
ln -sf fd/2 /root/dev/stderr
mount -t tmpfs -o mode=1777 shm /root/dev/shm
mount -t mqueue mqueue /root/dev/mqueue
mount -t cgroup2 -o nsdelegate cgroup2 /root/sys/fs/cgroup
mount -t securityfs securityfs /root/sys/kernel/security
mount -t tmpfs -o mode=755 run /root/run
mkdir -p /root/run/bed /root/run/lock /root/run/.init
# Files that are written and read a lot: 9p is slow.
mount -t tmpfs -o mode=1777,size=90% bed /root/run/bed
cp -a /bin /root/run/.init/
cp /modules/path /root/run/.init/modules
exec switch_root /root /run/.init/bin/sh /run/.init/bin/stage2
