//! `ringfence status`.

use super::output::{fields, table};
use super::{Context, pick};
use crate::control::model::Status;
use crate::control::protocol::Request;
use crate::failure::Failure;

/// Carries `status` out.
pub fn run(context: &Context) -> Result<(), Failure> {
    let status = context.ask_for(Request::Status, pick!(Answer::Status))?;
    context.output.show(&status, describe)
}

fn describe(status: &Status) -> String {
    let head = fields(&[
        ("Daemon", format!("{} (pid {})", status.version, status.pid)),
        ("State", status.state.display().to_string()),
        ("Target", status.target_name.clone()),
        (
            "I/O",
            format!("{}, {} reactors", status.io, status.reactors),
        ),
    ]);
    let portals = status
        .portals
        .iter()
        .map(|portal| vec![portal.target_port.to_string(), portal.address.clone()]);
    format!(
        "{head}\n\n{}",
        table(&["TARGET PORT", "PORTAL"], &[0], portals)
    )
}
