# A repository made, cloned, checked and packed.
set -e
export HOME=/tmp
cd /tmp
git config --global user.email somebody@example.org
git config --global user.name Somebody
git init -q one
cd one
for i in $(seq 30); do echo "$i" > "file$i"; done
git add .
git commit -qm first
git mv file1 moved
git commit -qam second
cd ..
git clone -q one two
cd two
test "$(git log --oneline | wc -l)" = 2
git fsck --no-progress
git gc -q
test -z "$(git status --short)"
