# in_bed.sh ROOM: runs each program of ROOM/inside behind both walls, on this machine's own root, and
# prints "NAME WALL STATUS SECONDS".
cp -a "$1" /run/bed/room
cd /run/bed/room
export XDG_DATA_HOME=$PWD/data XDG_RUNTIME_DIR=/run/bed/runtime TMPDIR=/run/bed
mkdir -m 700 "$XDG_RUNTIME_DIR"
for script in inside/*.sh; do
  name=$(basename "$script" .sh)
  for wall in $(cat "$name.walls"); do
    begun=$(date +%s%N)
    timeout 900 ./moat run --quiet --isolation "$wall" "$name.toml" > said 2>&1
    status=$?
    ended=$(date +%s%N)
    [ $status = 0 ] || { echo "$name, $wall:"; tail -5 said; } >&2
    echo "$name $wall $status $(((ended - begun) / 1000000))e-3"
  done
done
