//! From the lists of calls to filters.

use std::collections::BTreeMap;

use moat_init::seccomp::allow::AllowList;

use super::Thread;
use super::calls::{ALL, Calls, DEVICE, DEVICES, MAIN, VCPU};

/// Holds the calling thread to its list. Needs `no_new_privs`.
///
/// # Errors
/// The kernel's.
pub(super) fn install(thread: Thread) -> nix::Result<()> {
    let mut list = AllowList::new();
    let mut sometimes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for calls in of(thread) {
        for call in calls.always {
            list.allow(*call);
        }
        for (call, any_of) in calls.sometimes {
            sometimes.entry(*call).or_default().extend_from_slice(any_of);
        }
    }
    for (call, any_of) in sometimes {
        list.allow_where(call, any_of);
    }
    list.compile()?.install()
}

/// A thread's lists, which add up.
fn of(thread: Thread) -> Vec<&'static Calls> {
    let mut lists = vec![&ALL];
    match thread {
        Thread::Main => lists.push(&MAIN),
        Thread::Vcpu => lists.push(&VCPU),
        Thread::Device(name) => {
            lists.push(&DEVICE);
            lists.extend(DEVICES.iter().find(|calls| calls.thread == name));
        }
    }
    lists
}
