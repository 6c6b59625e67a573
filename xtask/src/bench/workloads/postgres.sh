# A cluster made and started by its own user, asked over both kinds of socket, and stopped.
set -e
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
install -d -o postgres /tmp/cluster
cat > /tmp/steps <<Q
set -e
cd /tmp/cluster
$bin/initdb -D data -A trust > log 2>&1 || { cat log; exit 1; }
$bin/pg_ctl -D data -o '-k /tmp/cluster' -w -l server start > log || { cat server; exit 1; }
$bin/psql -h /tmp/cluster -d postgres -v ON_ERROR_STOP=1 -Atc 'create table t as select generate_series(1, 20000) a; create index on t(a); select sum(a) from t' | grep -q 200010000
$bin/psql -h 127.0.0.1 -d postgres -v ON_ERROR_STOP=1 -Atc 'select count(*) from t' | grep -q 20000
$bin/pg_ctl -D data -m fast -w stop
Q
exec setpriv --reuid=postgres --regid=postgres --init-groups sh /tmp/steps
