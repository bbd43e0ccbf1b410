//! What the node tells on standard error, for the journal, and the service manager.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Writes a line with a priority that the journal understands: 3 error, 4 warning, 5 notice, 6 information.
pub fn line(priority: u8, text: &str) {
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        eprintln!("<{priority}>{text}");
    } else {
        eprintln!("{text}");
    }
}

/// Sends a state to the service manager (sd_notify(3)), if one is listening. Failing that is no reason not to run.
pub fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(hidden) => SocketAddr::from_abstract_name(hidden),
        None => SocketAddr::from_pathname(&name),
    };
    let sent = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        line(
            4,
            &format!("the service manager could not be told {state:?}: {error}"),
        );
    }
}
