#!/bin/sh
# The bed's first process after the switch to the host's files: runs the task, reports, powers off.
bin=/run/.init/bin
export PATH=$bin
cd /
# As systemd does.
ulimit -Hn 524288
hostname bed
ifconfig lo up
[ -w /dev/kvm ] || echo "fail no /dev/kvm: kvm-amd did not load" >&3
modules=$(cat /run/.init/modules)
if [ -d /lib/modules ] && [ -d "$modules" ]; then
    mount -t tmpfs modules /lib/modules
    ln -s "$modules" "/lib/modules/$(uname -r)"
fi
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
done

# The command writes to pipes, as it would anywhere: a port can't be opened twice (/dev/stdout).
mkfifo /run/.init/out /run/.init/err
cat /run/.init/out > "$(echo /dev/vport*p1)" 3>&- &
out=$!
cat /run/.init/err > "$(echo /dev/vport*p2)" 3>&- &
err=$!
echo run >&3
sh $bin/task < /dev/null > /run/.init/out 2> /run/.init/err 3>&-
status=$?

# A process left behind may hold the pipes open: after 2 s its output is no longer waited for.
tries=0
while kill -0 $out 2> /dev/null || kill -0 $err 2> /dev/null; do
    tries=$((tries + 1))
    [ $tries -gt 200 ] && break
    usleep 10000
done
sync
echo "exit $status" >&3
poweroff -f
