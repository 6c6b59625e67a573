# Namespaces in namespaces, as builders and browsers make them. A new procfs is not among it: the
# kernel gives none to whoever sees a masked one (mount_too_revealing, user_namespaces(7)).
exec unshare --user --map-root-user --mount --pid --net --ipc --uts --fork \
  sh -ec 'test "$(id -u)" = 0; test $$ = 1; mount -t tmpfs none /mnt; hostname inner; ip link set lo up'
