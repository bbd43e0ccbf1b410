//! `ringfence session ...`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::table;
use super::{Context, pick};
use crate::control::model::Session;
use crate::control::protocol::Request;
use crate::failure::Failure;

/// The commands on sessions.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// List who is logged in, from where, at which portal
    List,
    /// End a session; the initiator may log in again ('ringfence grant ... none' keeps it from the data)
    Drop(DropArgs),
}

/// `session drop`.
#[derive(Debug, Args)]
pub struct DropArgs {
    /// The session's ID as 'session list' shows it
    pub id: u64,
}

/// Carries a session command out.
pub fn run(context: &Context, command: SessionCommand) -> Result<(), Failure> {
    match command {
        SessionCommand::List => {
            let sessions = context.ask_for(Request::SessionList, pick!(Answer::Sessions))?;
            context.output.show(&sessions, |sessions| list(sessions))
        }
        SessionCommand::Drop(DropArgs { id }) => {
            context.tell(Request::SessionDrop { id })?;
            context.output.show(&json!({ "dropped": id }), |_| {
                format!("session {id} dropped")
            })
        }
    }
}

fn list(sessions: &[Session]) -> String {
    if sessions.is_empty() {
        return "nobody is logged in".to_owned();
    }
    let rows = sessions.iter().map(|session| {
        vec![
            session.id.to_string(),
            session.initiator.clone(),
            session.isid.clone(),
            session.target_port.to_string(),
            session.address.clone(),
            session.auth.clone(),
            session.kind.clone(),
            format!("{:.0}", session.since),
            match (&session.member, session.fenced) {
                (None, _) => "-".to_owned(),
                (Some(member), false) => member.clone(),
                (Some(member), true) => format!("{member} FENCED"),
            },
        ]
    });
    table(
        &[
            "ID",
            "INITIATOR",
            "ISID",
            "PORT",
            "FROM",
            "AUTH",
            "KIND",
            "SINCE",
            "MEMBER",
        ],
        &[0, 3],
        rows,
    )
}
