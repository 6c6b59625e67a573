# SQLite, threads, processes, sockets of three families, asyncio, epoll, signals, memory mappings.
exec python3 - <<'P'
import asyncio, hashlib, mmap, multiprocessing, os, select, signal, socket, sqlite3, subprocess, threading

base = sqlite3.connect("/tmp/base")
base.execute("create table t(a)")
base.executemany("insert into t values(?)", [(i,) for i in range(1000)])
base.commit()
assert base.execute("select sum(a) from t").fetchone()[0] == 499500

threads = [threading.Thread(target=lambda: hashlib.sha256(b"x" * 100000).hexdigest()) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert subprocess.check_output(["echo", "said"]) == b"said\n"

server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
peer, _ = server.accept()
client.send(b"ping")
assert peer.recv(4) == b"ping"
socket.socket(socket.AF_UNIX).bind("/tmp/socket")
socket.socket(socket.AF_INET6).bind(("::1", 0))

def square(x):
    return x * x

with multiprocessing.Pool(2) as pool:
    assert pool.map(square, range(10))[9] == 81

async def child():
    process = await asyncio.create_subprocess_exec("true")
    return await process.wait()

assert asyncio.run(child()) == 0
poll = select.epoll()
poll.register(peer.fileno())
os.eventfd(0)
os.memfd_create("memory")
os.pidfd_open(os.getpid())
mmap.mmap(-1, 1 << 20)[0:3] = b"abc"
signal.signal(signal.SIGALRM, lambda *_: None)
signal.alarm(1)
signal.pause()
P
