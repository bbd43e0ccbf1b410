//! `ringfence status`.

use super::output::{fields, names, table};
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
    let mut text = format!(
        "{head}\n\n{}",
        table(&["TARGET PORT", "PORTAL"], &[0], portals)
    );
    if !status.domains.is_empty() {
        let domains = status.domains.iter().map(|domain| {
            vec![
                domain.domain.clone(),
                domain.state.clone(),
                domain.epoch.to_string(),
                domain.members.to_string(),
                names(&domain.fenced),
            ]
        });
        let header = ["DOMAIN", "STATE", "EPOCH", "MEMBERS", "FENCED"];
        text.push_str("\n\n");
        text.push_str(&table(&header, &[2, 3], domains));
    }
    text
}
