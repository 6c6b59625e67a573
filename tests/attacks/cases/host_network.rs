//! The host's network is not there.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use anyhow::Result;

use crate::call::{Arg::N, call};
use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::{Field, excused};
use crate::inside::{Tries, number};

pub(super) const CASE: Case = Case {
    name: "host_network",
    does: "connects to a server on the host's loopback and to an abstract unix socket, lists interfaces, opens a packet socket",
    cve: Some("CVE-2020-15257"),
    hole: None,
    attack,
    behind: |field| run(field, |arguments| field.moat_with("", arguments)),
    open: |field| {
        let found = run(field, |arguments| field.naive_with(arguments, |_| {}))?;
        let interfaces = fs::read_dir("/sys/class/net")?.count();
        Ok(excused(found, |what| what != "interfaces" || interfaces > 1))
    },
};

fn attack(tries: &Tries, arguments: &[&str]) {
    let [port, name] = arguments else { return };
    let connected = TcpStream::connect(format!("127.0.0.1:{port}"));
    let connected = connected.map(|_| "connected").map_err(|error| number(&error));
    tries.of("a server of the host's", connected);
    let socket =
        SocketAddr::from_abstract_name(name).and_then(|name| UnixStream::connect_addr(&name));
    let socket = socket.map(|_| "connected").map_err(|error| number(&error));
    tries.of("an abstract socket of the host's", socket);
    let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let names = interfaces.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    let names: Vec<&str> = names.filter(|name| *name != "lo").collect();
    match names.as_slice() {
        [] => tries.refused("interfaces", "lo alone"),
        names => tries.got("interfaces", names.join(", ")),
    }
    // ETH_P_ALL of linux/if_ether.h, in network order.
    let all = i64::from(3_u16.to_be());
    let packets =
        call(libc::SYS_socket, [N(libc::AF_PACKET.into()), N(libc::SOCK_RAW.into()), N(all)]);
    tries.of("packet socket", packets.map(|_| "opened"));
}

fn run(
    field: &Field<'_>,
    attack: impl FnOnce(&[&str]) -> Result<Vec<Evidence>>,
) -> Result<Vec<Evidence>> {
    let server = TcpListener::bind("127.0.0.1:0")?;
    let port = server.local_addr()?.port().to_string();
    let name = format!("moat-attack-{}", field.space.path().display());
    let _socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    attack(&[&port, &name])
}
