# Namespaces in namespaces, as builders and browsers make them: moat's filter lets who may do it.
exec unshare --user --map-root-user --mount --pid --net --fork --mount-proc \
  sh -ec 'test "$(id -u)" = 0; mount -t tmpfs none /mnt; test "$(ls -d /proc/[0-9]* | wc -l)" -lt 9'
